/**
 * Reads a call whose arguments are tagged text: a name, then keys and values between tags. Called by the families.
 *
 * The JSON of the arguments is made here: text is sent on while it comes, a value of another type when it is whole. A
 * call that stops in the middle is closed, so that its arguments are JSON at any length. Each character is looked at once.
 */
import type { ToolDefinition } from "#core/chat.ts";
import { Marks } from "#prompt/marks.ts";
import { nameOf } from "./_headed-call.ts";
import { isText, looseToJson, typedToJson, typeOf, type ValueType } from "./_typed-value.ts";
import { type CallReader, callId, type ToolPart } from "./parser.ts";

export interface TaggedLiterals {
  /** What the name ends with, and goes with it. */
  readonly nameEnd: string;
  readonly keyOpen: string;
  readonly keyClose: string;
  /** Between a key's end and its value; "" where the value follows at once. */
  readonly valueOpen: string;
  readonly valueClose: string;
  /** Marks that end a value whose own end is missing; a line break that one begins with is the value's last. */
  readonly impliedEnds: readonly string[];
  readonly close: string;
  /** Marks that end a call whose own end is missing. */
  readonly impliedCloses: readonly string[];
  /** One line break at each end of a value is not part of it. */
  readonly trimBreaks: boolean;
  /** Values that are not texts by the schema: what it says they are, or what they look like. */
  readonly values: "typed" | "loose";
  readonly makeId?: () => string;
}

const LONGEST_NAME = 512;

type Phase = "name" | "between" | "key" | "gap" | "value";

export interface TaggedForm extends TaggedLiterals {
  /** What each part of a call ends with. */
  readonly marks: Readonly<Record<Phase, Marks>>;
}

export function taggedForm(literals: TaggedLiterals): TaggedForm {
  const { nameEnd, keyOpen, keyClose, valueOpen, valueClose, impliedEnds, close, impliedCloses } = literals;
  const closes = [close, ...impliedCloses];
  const marks = {
    name: new Marks([nameEnd, keyOpen, ...closes]),
    between: new Marks([keyOpen, ...closes]),
    key: new Marks([keyClose, ...closes]),
    gap: new Marks([...(valueOpen === "" ? [] : [valueOpen]), keyOpen, ...closes]),
    value: new Marks([valueClose, ...impliedEnds]),
  };
  return { ...literals, marks };
}

export class TaggedCallReader implements CallReader {
  state: "open" | "done" | "broken" = "open";
  source = "";
  committed = false;
  private readonly index: number;
  private readonly form: TaggedForm;
  private readonly tools: readonly ToolDefinition[];
  private phase: Phase = "name";
  private name = "";
  private key = "";
  private value: ValueText | undefined;
  private members = 0;
  private announced = false;
  private waiting = "";

  constructor(index: number, form: TaggedForm, tools: readonly ToolDefinition[]) {
    this.index = index;
    this.form = form;
    this.tools = tools;
  }

  feed(text: string): number {
    let used = 0;
    while (this.state === "open") {
      const step = this.step(text, used);
      if (!this.committed) this.source += text.slice(used, step.to);
      used = step.to;
      if (!step.more) break;
    }
    return used;
  }

  /** On to the next mark. @returns where it stands now, and whether there was one */
  private step(text: string, from: number): { readonly to: number; readonly more: boolean } {
    const { phase } = this;
    const marks = this.form.marks[phase];
    const found = marks.find(text, from);
    const upTo = found?.at ?? Math.max(from, text.length - marks.partial(text));
    this.read(text.slice(from, upTo));
    if (found === undefined || this.state !== "open") return { to: upTo, more: false };
    const taken = this.atMark(phase, found.mark);
    return { to: upTo + taken, more: true };
  }

  private read(text: string): void {
    if (this.phase === "value") this.waiting += this.value?.push(text) ?? "";
    else if (this.phase === "name" || this.phase === "key") {
      this[this.phase] += text;
      if (this[this.phase].length > LONGEST_NAME) this.fail();
    } else if (!this.committed && text.trim() !== "") this.state = "broken";
  }

  /** No call if it is none yet; else it ends here. */
  private fail(): void {
    this.state = this.committed ? "done" : "broken";
    this.close();
  }

  /** @returns how much of the mark is used */
  private atMark(phase: Phase, mark: string): number {
    const { form } = this;
    if (phase === "value") return this.endValue(mark);
    if (phase === "name" && !this.endName()) return 0;
    if (phase === "name" && mark === form.nameEnd) return mark.length;
    if (phase === "key" && mark === form.keyClose) return this.endKey(mark);
    if (phase === "gap" && mark === form.valueOpen) return this.beginValue(mark);
    if (mark !== form.keyOpen) return this.atClose(mark);
    this.commit();
    [this.phase, this.key] = ["key", ""];
    return mark.length;
  }

  private endName(): boolean {
    const name = nameOf(this.name);
    if (name === undefined) this.state = "broken";
    else [this.name, this.phase] = [name, "between"];
    return name !== undefined;
  }

  private atClose(mark: string): number {
    this.commit();
    this.close();
    this.state = "done";
    return mark === this.form.close ? mark.length : 0;
  }

  private commit(): void {
    if (this.committed) return;
    [this.committed, this.source, this.waiting] = [true, "", "{"];
  }

  private endKey(mark: string): number {
    this.key = this.key.trim();
    if (this.form.valueOpen === "") return this.beginValue(mark);
    this.phase = "gap";
    return mark.length;
  }

  private beginValue(mark: string): number {
    const type = typeOf(this.tools, this.name, this.key);
    this.waiting += `${this.members++ === 0 ? "" : ", "}${JSON.stringify(this.key)}: `;
    this.value = new ValueText(this.form, type);
    this.phase = "value";
    return mark.length;
  }

  private endValue(mark: string): number {
    const own = mark === this.form.valueClose;
    if (!own && mark.startsWith("\n")) this.waiting += this.value?.push("\n") ?? "";
    this.finishValue();
    this.phase = "between";
    if (own) return mark.length;
    return mark.startsWith("\n") ? 1 : 0;
  }

  private finishValue(): void {
    this.waiting += this.value?.end() ?? "";
    this.value = undefined;
  }

  private close(): void {
    if (this.committed) this.waiting += "}";
  }

  end(rest: string): void {
    if (!this.committed) return;
    if (this.value !== undefined) {
      this.waiting += this.value.push(rest);
      this.finishValue();
    }
    this.close();
  }

  take(): ToolPart[] {
    if (!this.committed || (this.announced && this.waiting === "")) return [];
    const head = this.announced ? {} : { id: (this.form.makeId ?? callId)(), name: this.name };
    const fragment: ToolPart = { type: "call", index: this.index, ...head, arguments: this.waiting };
    this.announced = true;
    this.waiting = "";
    return [fragment];
  }
}

/** One value's text as it comes → its JSON. */
class ValueText {
  private readonly form: TaggedForm;
  private readonly type: ValueType;
  /** Text that is sent on as it comes: whether it has begun. */
  private begun = false;
  private readonly whole: string[] = [];
  private held = "";
  private atStart = true;

  constructor(form: TaggedForm, type: ValueType) {
    this.form = form;
    this.type = type;
  }

  push(text: string): string {
    if (!isText(this.type)) {
      this.whole.push(text);
      return "";
    }
    this.held += text;
    this.dropFirstBreak();
    // The last line break may be none of the text's, and half a character is none.
    const keep = (this.form.trimBreaks && this.held.endsWith("\n")) || /[\uD800-\uDBFF]$/.test(this.held) ? 1 : 0;
    const ready = this.held.slice(0, this.held.length - keep);
    this.held = this.held.slice(ready.length);
    return this.open() + inner(ready);
  }

  private dropFirstBreak(): void {
    if (!this.atStart || this.held === "") return;
    this.atStart = false;
    if (this.form.trimBreaks && this.held.startsWith("\n")) this.held = this.held.slice(1);
  }

  private open(): string {
    if (this.begun) return "";
    this.begun = true;
    return '"';
  }

  end(): string {
    if (isText(this.type)) {
      const rest = this.form.trimBreaks && this.held.endsWith("\n") ? this.held.slice(0, -1) : this.held;
      return `${this.open()}${inner(rest)}"`;
    }
    let text = this.whole.join("");
    if (this.form.trimBreaks) text = text.replace(/^\n/, "").replace(/\n$/, "");
    return this.form.values === "loose" ? looseToJson(text.trim()) : typedToJson(text, this.type);
  }
}

/** What stands between the quotes. */
function inner(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}
