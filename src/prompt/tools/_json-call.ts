/**
 * Reads a call that is one JSON object: `{"name": …, "arguments": {…}}`, keys in any order, `parameters` for `arguments`.
 *
 * The arguments are the model's own text, fragment by fragment. Each character is looked at once. Called by the families.
 */
import { parseJson } from "#base/json.ts";
import type { CallForm } from "#core/structured.ts";
import { type CallReader, callId, type ToolPart } from "./parser.ts";

/** Calls as one JSON list of such objects. */
export const JSON_LIST_CALLS: CallForm = {
  begin: "[",
  mark: "",
  head: '{"name": ',
  name: "json",
  middle: ', "arguments": ',
  close: "}",
  joint: ", ",
  end: "]",
};

/** Walks one JSON object, character by character, and hands out name and arguments as they come. */
export class JsonCallReader implements CallReader {
  state: "open" | "done" | "broken" = "open";
  source = "";
  committed = false;
  private readonly index: number;
  private readonly makeId: () => string;
  private depth = 0;
  private inString = false;
  private escaped = false;
  private token = "";
  private key: string | undefined;
  private name: string | undefined;
  private collecting = false;
  private waiting = "";
  private begun = false;

  constructor(index: number, makeId: () => string = callId) {
    this.index = index;
    this.makeId = makeId;
  }

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

  end(): void {
    // A last call without its end counts as far as it came.
  }

  take(): ToolPart[] {
    if (!this.committed || (this.announced && this.waiting === "")) return [];
    const head = this.announced ? {} : { id: this.makeId(), name: this.name ?? "" };
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
