/**
 * Splits `<think>…</think>` from the answer, streaming. One file a family; these cover the models that think in tags.
 *
 * Invariants: nothing is held back but what may be (the beginning of) a tag or the line breaks beside one; the
 * concatenation of both parts is the text without its tags and the line breaks that touch them.
 */

export interface Split {
  readonly reasoning: string;
  readonly content: string;
}

export interface ReasoningParser {
  push(text: string): Split;
  /** The stream is over: what was held back. */
  end(): Split;
  /** Whether the text is inside the reasoning now. */
  readonly thinking: boolean;
}

const OPEN = "<think>";
const CLOSE = "</think>";
/** What opens and closes a thought. */
export const THINK_TAGS = { open: OPEN, close: CLOSE } as const;

/** How the parser begins: `prompt` as the text before the answer, which may have opened the tag. */
export const REASONING_PARSERS = {
  /** A model that thinks always: the opening tag may be missing. */
  deepseek_r1: (_prompt: string): ReasoningParser => new ThinkParser("reasoning"),
  /** Thinks if the prompt opened the tag or the answer begins with it. */
  qwen3: (prompt: string): ReasoningParser => new ThinkParser(prompt.trimEnd().endsWith(OPEN) ? "reasoning" : "start"),
} as const;

export type ReasoningFamily = keyof typeof REASONING_PARSERS;

type Phase = "start" | "reasoning" | "content";

class ThinkParser implements ReasoningParser {
  private phase: Phase;
  private held = "";
  /** Line breaks right behind a tag are not text. */
  private skipBreaks: boolean;

  constructor(phase: Phase) {
    this.phase = phase;
    this.skipBreaks = phase === "reasoning";
  }

  get thinking(): boolean {
    return this.phase === "reasoning";
  }

  push(text: string): Split {
    this.held += text;
    let [reasoning, content] = ["", ""];
    if (this.phase === "start" && !this.decide()) return { reasoning, content };
    if (this.phase === "reasoning") reasoning = this.think();
    if (this.phase === "content") {
      content = this.afterBreaks(this.held);
      this.held = "";
    }
    return { reasoning, content };
  }

  /** Does the answer begin with the tag? @returns false while it cannot be told */
  private decide(): boolean {
    const body = this.held.trimStart();
    if (body.startsWith(OPEN)) {
      this.held = body.slice(OPEN.length);
      this.enter("reasoning");
    } else if (!OPEN.startsWith(body)) this.phase = "content";
    return this.phase !== "start";
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.skipBreaks = true;
  }

  private think(): string {
    const at = this.held.indexOf(CLOSE);
    if (at >= 0) {
      const text = this.afterBreaks(this.held.slice(0, at)).trimEnd();
      this.held = this.held.slice(at + CLOSE.length);
      this.enter("content");
      return text;
    }
    const keep = partialTag(this.held);
    const text = this.held.slice(0, this.held.length - keep);
    this.held = this.held.slice(this.held.length - keep);
    return this.afterBreaks(text);
  }

  private afterBreaks(text: string): string {
    if (!this.skipBreaks) return text;
    const trimmed = text.replace(/^[\r\n]+/, "");
    if (trimmed !== "") this.skipBreaks = false;
    return trimmed;
  }

  end(): Split {
    const rest = this.held;
    this.held = "";
    return this.phase === "reasoning"
      ? { reasoning: this.afterBreaks(rest).trimEnd(), content: "" }
      : { reasoning: "", content: this.afterBreaks(rest) };
  }
}

/** Length of the end of `text` that may be white space before a closing tag, or the beginning of one. */
function partialTag(text: string): number {
  let tag = Math.min(text.length, CLOSE.length - 1);
  while (tag > 0 && !CLOSE.startsWith(text.slice(text.length - tag))) tag--;
  const body = text.slice(0, text.length - tag);
  return tag + (body.length - body.trimEnd().length);
}
