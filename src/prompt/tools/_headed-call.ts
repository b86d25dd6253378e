/**
 * Reads a call that is a head and a JSON object: `NAME [marks] {…}`. Called by the families.
 *
 * The head is read up to the first brace, and what it says is the family's matter. The arguments are the model's own
 * text, up to the brace that closes the first one; what is in strings is no brace and no mark. Each character is looked
 * at once.
 */
import { Marks } from "#prompt/marks.ts";
import { ObjectEnd } from "#prompt/object-end.ts";
import { type CallReader, callId, type ToolPart } from "./parser.ts";

export interface Head {
  readonly name: string;
  /** The model's own, where it writes one. */
  readonly id?: string;
}

export interface HeadForm {
  /** @returns undefined when it is none */
  readonly parse: (head: string) => Head | undefined;
  /** What ends a call that has no arguments. */
  readonly close: string;
  /** What ends a head: a brace, `close`, and what begins a call anew. */
  readonly marks: Marks;
  readonly makeId?: () => string;
}

/** @param opens marks that cannot stand in a head */
export function headMarks(close: string, opens: readonly string[]): Marks {
  return new Marks(["{", close, ...opens]);
}

/** A head is a name and a few marks. */
const LONGEST_HEAD = 512;

export class HeadedCallReader implements CallReader {
  state: "open" | "done" | "broken" = "open";
  source = "";
  private readonly index: number;
  private readonly form: HeadForm;
  private head: Head | undefined;
  private announced = false;
  private waiting = "";
  private readonly object = new ObjectEnd();

  constructor(index: number, form: HeadForm) {
    this.index = index;
    this.form = form;
  }

  get committed(): boolean {
    return this.head !== undefined;
  }

  feed(text: string): number {
    const used = this.head === undefined ? this.feedHead(text) : 0;
    return this.head === undefined || this.state !== "open" ? used : used + this.feedObject(text.slice(used));
  }

  private feedHead(text: string): number {
    const found = this.form.marks.find(text);
    const used = found?.at ?? text.length - this.form.marks.partial(text);
    this.source += text.slice(0, used);
    if (this.source.length > LONGEST_HEAD) this.state = "broken";
    else if (found !== undefined) this.endHead(found.mark);
    return used;
  }

  private endHead(mark: string): void {
    const bare = mark === this.form.close;
    if (mark === "{" || bare) this.head = this.form.parse(this.source);
    if (this.head === undefined) this.state = "broken";
    else if (bare) [this.waiting, this.state] = ["{}", "done"];
  }

  private feedObject(text: string): number {
    const used = this.object.feed(text);
    this.waiting += text.slice(0, used);
    if (this.object.closed) this.state = "done";
    return used;
  }

  end(): void {
    // Arguments without their end count as far as they came.
  }

  take(): ToolPart[] {
    if (this.head === undefined || (this.announced && this.waiting === "")) return [];
    const { name, id } = this.head;
    const start = this.announced ? {} : { id: id ?? (this.form.makeId ?? callId)(), name };
    const fragment: ToolPart = { type: "call", index: this.index, ...start, arguments: this.waiting };
    this.announced = true;
    this.waiting = "";
    return [fragment];
  }
}

/** A function's name, as far as a parser cares: one word. */
export function nameOf(text: string): string | undefined {
  const name = text.trim();
  return name === "" || /[\s<>{}"]/.test(name) ? undefined : name;
}
