/**
 * What was asked and answered, for operators who want it kept: the beginning of each, with secrets taken out.
 *
 * Invariant: bounded, however much is said. Callers: gate.ts.
 */
export type Part = "request" | "answer";

/** Characters of each part. */
const KEPT = 16_384;
/** Beyond what is kept, so that a secret on the border is seen whole. */
const MARGIN = 4096;

export class Content {
  readonly #clean: (text: string) => string;
  readonly #parts: Record<Part, { text: string; cut: boolean }> = {
    request: { text: "", cut: false },
    answer: { text: "", cut: false },
  };

  constructor(clean: (text: string) => string) {
    this.#clean = clean;
  }

  add(part: Part, piece: string | Uint8Array): void {
    const kept = this.#parts[part];
    const room = KEPT + MARGIN - kept.text.length;
    if (room <= 0) {
      kept.cut = true;
      return;
    }
    const text = typeof piece === "string" ? piece : Buffer.from(piece).toString("utf8", 0, room * 4);
    kept.cut ||= text.length > room;
    kept.text += text.slice(0, room);
  }

  /** Undefined: nothing was said. */
  take(part: Part): { readonly content: { readonly text: string; readonly cut: boolean } } | undefined {
    const { text, cut } = this.#parts[part];
    if (text === "") return undefined;
    const clean = this.#clean(text);
    return { content: { text: clean.slice(0, KEPT).toWellFormed(), cut: cut || clean.length > KEPT } };
  }
}
