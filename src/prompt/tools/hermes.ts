/**
 * Hermes tool calls, streaming: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, repeated.
 *
 * Text before the first call is content, text after it is dropped. A call counts from the moment its name and the
 * beginning of its arguments are known; what turns out not to be a call before that is content as it was written. The
 * arguments are the model's own text, fragment by fragment. Each character is looked at once.
 */
import { randomUUID } from "node:crypto";
import { parseJson } from "#base/json.ts";

export type ToolPart =
  | { readonly type: "text"; readonly text: string }
  /** `name` and `id` on a call's first fragment. */
  | {
      readonly type: "call";
      readonly index: number;
      readonly id?: string;
      readonly name?: string;
      readonly arguments: string;
    };

export interface ToolParser {
  push(text: string): ToolPart[];
  end(): ToolPart[];
}

const OPEN = "<tool_call>";

export function hermesParser(): ToolParser {
  return new HermesParser();
}

class HermesParser implements ToolParser {
  private held = "";
  private call: CallScanner | undefined;
  private calls = 0;

  push(text: string): ToolPart[] {
    this.held += text;
    const parts: ToolPart[] = [];
    while (this.advance(parts)) {
      // Until nothing more can be told from what is there.
    }
    return parts;
  }

  private advance(parts: ToolPart[]): boolean {
    return this.call === undefined ? this.seek(parts) : this.scan(this.call, parts);
  }

  /** Outside of a call: on to the next opening tag. */
  private seek(parts: ToolPart[]): boolean {
    const at = this.held.indexOf(OPEN);
    const upTo = at >= 0 ? at : this.held.length - partial(this.held, OPEN);
    this.text(parts, this.held.slice(0, upTo));
    this.held = this.held.slice(at >= 0 ? at + OPEN.length : upTo);
    if (at >= 0) this.call = new CallScanner(this.calls);
    return at >= 0;
  }

  /** Content before the first call; nothing after it. */
  private text(parts: ToolPart[], text: string): void {
    if (text !== "" && this.calls === 0) parts.push({ type: "text", text });
  }

  private scan(call: CallScanner, parts: ToolPart[]): boolean {
    const used = call.feed(this.held);
    this.held = this.held.slice(used);
    for (const fragment of call.take()) parts.push(fragment);
    if (call.state === "open") return false;
    this.leave(call, parts);
    return true;
  }

  private leave(call: CallScanner, parts: ToolPart[]): void {
    this.call = undefined;
    if (call.committed) {
      this.calls++;
      this.held = this.held.replace(/^\s*<\/tool_call>/, "");
      // The closing tag may not be there yet: it is skipped as text after a call.
    } else this.text(parts, OPEN + call.source);
  }

  end(): ToolPart[] {
    const parts: ToolPart[] = [];
    if (this.call !== undefined) {
      for (const fragment of this.call.take()) parts.push(fragment);
      if (!this.call.committed) this.text(parts, OPEN + this.call.source);
    } else this.text(parts, this.held);
    this.held = "";
    this.call = undefined;
    return parts;
  }
}

/** Walks one JSON object, character by character, and hands out name and arguments as they come. */
class CallScanner {
  state: "open" | "done" | "broken" = "open";
  /** All that was read, for when it is no call. Emptied once it is one. */
  source = "";
  committed = false;
  private readonly index: number;
  private depth = 0;
  private inString = false;
  private escaped = false;
  private token = "";
  private key: string | undefined;
  private name: string | undefined;
  private collecting = false;
  private waiting = "";
  private begun = false;

  constructor(index: number) {
    this.index = index;
  }

  /** @returns characters used */
  feed(text: string): number {
    let i = 0;
    while (i < text.length && this.state === "open") {
      if (this.depth === 0 && !/[\s{]/.test(text[i] as string)) {
        this.state = "broken";
        break;
      }
      this.character(text[i] as string);
      if (!this.committed) this.source += text[i];
      i++;
    }
    return i;
  }

  private character(c: string): void {
    if (this.inString) this.inText(c);
    else if (c === '"') this.beginText(c);
    else if (c === "{" || c === "[") this.down(c);
    else if (c === "}" || c === "]") this.up(c);
    else if (this.depth === 1) this.atTop(c);
    else this.collect(c);
  }

  private inText(c: string): void {
    this.collect(c);
    if (this.depth === 1) this.token += c;
    if (this.escaped) this.escaped = false;
    else if (c === "\\") this.escaped = true;
    else if (c === '"') this.endText();
  }

  private beginText(c: string): void {
    if (this.depth === 1 && this.key !== undefined) this.beginValue();
    this.inString = true;
    this.token = this.depth === 1 ? c : "";
    this.collect(c);
  }

  private endText(): void {
    this.inString = false;
    if (this.depth !== 1) return;
    const text = textOf(this.token);
    if (this.key === undefined) this.key = text;
    else if (this.key === "name") this.name = text;
    this.commit();
  }

  private down(c: string): void {
    if (this.depth === 1) this.beginValue();
    this.depth++;
    this.collect(c);
  }

  private up(c: string): void {
    this.depth--;
    if (this.depth === 0) {
      this.endValue();
      this.state = this.committed || this.commitBare() ? "done" : "broken";
      return;
    }
    this.collect(c);
  }

  private atTop(c: string): void {
    if (c === ",") this.endValue();
    else if (c !== ":" && !/\s/.test(c)) {
      this.beginValue();
      this.collect(c);
    }
  }

  private beginValue(): void {
    if (this.key === "arguments" || this.key === "parameters") [this.collecting, this.begun] = [true, true];
    this.commit();
  }

  private endValue(): void {
    this.key = undefined;
    this.collecting = false;
  }

  private collect(c: string): void {
    if (this.collecting) this.waiting += c;
  }

  private commit(): void {
    if (this.committed || !this.begun || this.name === undefined || this.name === "") return;
    this.committed = true;
    this.source = "";
  }

  /** A call without arguments is a call with none. */
  private commitBare(): boolean {
    if (this.name === undefined || this.name === "") return false;
    [this.begun, this.waiting] = [true, this.begun ? this.waiting : "{}"];
    this.commit();
    return true;
  }

  private announced = false;

  /** Fragments that may be sent by now. */
  take(): ToolPart[] {
    if (!this.committed || (this.announced && this.waiting === "")) return [];
    const head = this.announced
      ? {}
      : { id: `chatcmpl-tool-${randomUUID().replaceAll("-", "")}`, name: this.name ?? "" };
    const fragment: ToolPart = { type: "call", index: this.index, ...head, arguments: this.waiting };
    this.announced = true;
    this.waiting = "";
    return [fragment];
  }
}

function textOf(token: string): string | undefined {
  try {
    const value = parseJson(token);
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Length of the longest end of `text` that begins `tag`. */
function partial(text: string, tag: string): number {
  let length = Math.min(text.length, tag.length - 1);
  while (length > 0 && !tag.startsWith(text.slice(text.length - length))) length--;
  return length;
}
