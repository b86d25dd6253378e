/**
 * Calls as a Python list: the output is `[f(a=1, b="x"), g()]`; Llama 4 may put marks around it. Nothing is evaluated: a
 * scanner finds the end of each call and a reader of literals makes JSON of it.
 *
 * A call is sent when it is whole: before that it may still be something else, which is content.
 */
import type { CallForm } from "#core/structured.ts";
import { LeadingCalls } from "./_calls.ts";
import { keywordsToJson } from "./_python.ts";
import { type CallReader, callId, type ToolParser, type ToolPart } from "./parser.ts";

const START = "<|python_start|>";
export const LLAMA4_MARKS = [START, "<|python_end|>"] as const;

/** Llama 4's too, without its marks: they may stand around it, and are control tokens. */
export const PYTHONIC_CALLS: CallForm = {
  begin: "[",
  mark: "",
  head: "",
  name: "plain",
  middle: "(",
  arguments: { kind: "python" },
  close: ")",
  joint: ", ",
  end: "]",
};

export function pythonicParser(): ToolParser {
  return new LeadingCalls({ prefixes: [], first: "", list: true, joint: "," }, (index) => new PythonCallReader(index));
}

export function llama4PythonicParser(): ToolParser {
  return new LeadingCalls(
    { prefixes: [START], first: "", list: true, joint: "," },
    (index) => new PythonCallReader(index),
  );
}

const LONGEST_NAME = 256;

class PythonCallReader implements CallReader {
  state: "open" | "done" | "broken" = "open";
  source = "";
  private readonly index: number;
  private readonly call = new CallEnd();
  private name: string | undefined;
  private ready: string | undefined;
  private taken = false;

  constructor(index: number) {
    this.index = index;
  }

  get committed(): boolean {
    return this.ready !== undefined;
  }

  feed(text: string): number {
    let i = 0;
    while (i < text.length && this.state === "open") {
      const c = text[i++] as string;
      if (this.name === undefined) this.atName(c);
      else if (this.call.closedBy(c)) this.finish();
      this.source += c;
    }
    return i;
  }

  /** Dots are names of modules, which some models put before functions. */
  private atName(c: string): void {
    if (c === "(" && /^[A-Za-z_][\w.-]*\s*$/.test(this.source)) this.name = this.source.trimEnd();
    else if (!/[\w.\s-]/.test(c) || this.source.length > LONGEST_NAME) this.state = "broken";
  }

  private finish(): void {
    this.ready = keywordsToJson(this.source.slice(this.source.indexOf("(") + 1));
    this.state = this.ready === undefined ? "broken" : "done";
  }

  end(): void {
    // Half a call is none.
  }

  take(): ToolPart[] {
    if (this.ready === undefined || this.taken) return [];
    this.taken = true;
    return [{ type: "call", index: this.index, id: callId(), name: this.name ?? "", arguments: this.ready }];
  }
}

/** Finds the bracket that closes a call, character by character; what stands in strings is no bracket. */
class CallEnd {
  private depth = 1;
  /** The quote that ends the string; "" outside of strings. */
  private quote = "";
  /** Quotes in a row, where three of them mean something. */
  private run = "";
  private escaped = false;

  closedBy(c: string): boolean {
    if (this.quote === "") this.outside(c);
    else this.inside(c);
    return this.depth === 0;
  }

  private outside(c: string): void {
    // Two quotes were an empty string; a third one makes them the beginning of a long one.
    if (this.run.length === 2 && c === this.run[0]) [this.quote, this.run] = [c.repeat(3), ""];
    else if (c === '"' || c === "'") [this.quote, this.run] = [c, c];
    else {
      this.run = "";
      if (c === "(" || c === "[" || c === "{") this.depth++;
      else if (c === ")" || c === "]" || c === "}") this.depth--;
    }
  }

  private inside(c: string): void {
    if (this.escaped) this.escaped = false;
    else if (c === "\\") this.escaped = true;
    else if (this.quote.length === 1) this.insideShort(c);
    else {
      this.run = c === this.quote[0] ? this.run + c : "";
      if (this.run === this.quote) this.quote = this.run = "";
    }
    if (this.escaped) this.run = "";
  }

  private insideShort(c: string): void {
    if (c !== this.quote) this.run = "";
    else {
      this.quote = "";
      this.run = this.run === c ? c + c : "";
    }
  }
}
