/**
 * One line of an exposition that is a sample. Pure, and linear in the line's length. Private to read.ts.
 */
import { ExpositionError } from "./error.ts";

/** Name, and value as it is spelled between the quotes: both formats escape alike, and one value has one spelling. */
export type Label = readonly [name: string, spelled: string];

export interface Sample {
  readonly name: string;
  readonly labels: readonly Label[];
  /** As it was written. */
  readonly value: string;
}

const NAME = /[a-zA-Z_:][a-zA-Z0-9_:]*/y;
const OPENED = /[ \t]*\{[ \t]*/y;
const CLOSED = /\}[ \t]*/y;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\[\\"n][^"\\]*)*)"[ \t]*/y;
const COMMA = /,[ \t]*/y;
const BLANKS = /[ \t]+/y;
const NUMBER = String.raw`[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,5})?|Inf)|NaN`;
const WHOLE_NUMBER = new RegExp(`^(?:${NUMBER})$`);
const REST = new RegExp(String.raw`(${NUMBER})(?:[ \t]+-?\d+)?[ \t]*$`, "y");
const OPEN_REST = new RegExp(String.raw`(${NUMBER})(?: -?\d+(?:\.\d+)?)?(?: # (.*))?$`, "y");
const MAX_NAME = 256;
const MAX_LABELS = 64;
const MAX_VALUE = 64;

/** Where a line has been read to. */
class Cursor {
  at = 0;
  readonly line: string;

  constructor(line: string) {
    this.line = line;
  }

  take(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.line);
    if (found === null) return undefined;
    this.at = pattern.lastIndex;
    return found;
  }
}

/** @param open OpenMetrics. @throws ExpositionError */
export function readSample(line: string, open: boolean): Sample {
  const cursor = new Cursor(line);
  const [name] = cursor.take(NAME) ?? [];
  if (name === undefined || name.length > MAX_NAME) throw new ExpositionError("no name");
  const labelled = cursor.take(OPENED) !== undefined;
  const labels = labelled ? readLabels(cursor) : [];
  if (!labelled && cursor.take(BLANKS) === undefined) throw new ExpositionError("no value");
  const [, value, exemplar] = cursor.take(open ? OPEN_REST : REST) ?? [];
  if (value === undefined || value.length > MAX_VALUE) throw new ExpositionError("no value");
  if (exemplar !== undefined) checkExemplar(exemplar);
  return { name, labels, value };
}

/** Behind the brace that opens them, up to the value. */
function readLabels(cursor: Cursor): readonly Label[] {
  const labels: Label[] = [];
  for (let more = true; more; more = cursor.take(COMMA) !== undefined) {
    const [, name, spelled] = cursor.take(LABEL) ?? [];
    if (name === undefined || spelled === undefined) break;
    // Of Prometheus' own: __name__ would make it another metric's.
    if (name.startsWith("__") || name.length > MAX_NAME) throw new ExpositionError("a label's name");
    if (labels.some(([other]) => other === name)) throw new ExpositionError("a label twice");
    if (labels.length === MAX_LABELS) throw new ExpositionError("too many labels");
    labels.push([name, spelled]);
  }
  if (cursor.take(CLOSED) === undefined) throw new ExpositionError("labels");
  return labels;
}

/** It is left out; but what is none makes the line none. */
function checkExemplar(text: string): void {
  const cursor = new Cursor(text);
  if (cursor.take(OPENED) === undefined) throw new ExpositionError("an exemplar");
  readLabels(cursor);
  const rest = cursor.take(OPEN_REST);
  if (rest === undefined || rest[2] !== undefined) throw new ExpositionError("an exemplar");
}

/** Whether a label's value is one, as `le` and `quantile` have to be. */
export function isNumber(text: string | undefined): boolean {
  return text !== undefined && text.length <= MAX_VALUE && WHOLE_NUMBER.test(text);
}
