/**
 * The head of an answer, read strictly (RFC 9112): what two readers could read differently is none. Pure.
 *
 * Invariants (Wall: T120): a line ends with CR LF and nothing else does; no folded lines, no space before a colon, no byte
 * that is no text; a length is digits, said once, and never beside chunks; chunked is the only coding.
 * Callers: _answer.ts.
 */

/** Those that anybody looks at; one that came twice has both values. */
export type AnswerHeaders = Readonly<Record<string, string | string[]>>;

export interface AnswerHead {
  readonly status: number;
  readonly headers: AnswerHeaders;
  /** Of the body; `chunked`; undefined: nothing says, or it has none. */
  readonly length: number | "chunked" | undefined;
  /** Another answer may come on the connection. */
  readonly keeps: boolean;
}

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)$/;
const LENGTH = /^[0-9]{1,15}$/;
const KEPT: ReadonlySet<string> = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "keep-alive",
  "metadata",
  "retry-after",
  "transfer-encoding",
]);
const BODILESS: ReadonlySet<number> = new Set([204, 304]);

/** @param text without the blank line at its end, a character a byte. @returns what is wrong with it, as a word for the log */
export function readHead(text: string): AnswerHead | string {
  const [first = "", ...lines] = text.split("\r\n");
  const [, minor, code] = STATUS_LINE.exec(first) ?? [];
  if (code === undefined) return "status line";
  const headers: Record<string, string | string[]> = {};
  for (const line of lines) {
    const problem = readField(line, headers);
    if (problem !== undefined) return problem;
  }
  const status = Number(code);
  const length = status < 200 || BODILESS.has(status) ? undefined : framing(headers, minor === "0");
  if (typeof length === "string" && length !== "chunked") return length;
  const keeps = minor === "1" && !listed(headers.connection, "close");
  return { status, headers, length, keeps };
}

/** A line of a head, or of what follows the last chunk. @returns what is wrong with it */
export function readField(line: string, into?: Record<string, string | string[]>): string | undefined {
  const [, name, rest = ""] = FIELD.exec(line) ?? [];
  if (name === undefined) return "header";
  const known = name.toLowerCase();
  if (into === undefined || !KEPT.has(known)) return undefined;
  const value = trimmed(rest);
  const before = into[known];
  into[known] = before === undefined ? value : Array.isArray(before) ? [...before, value] : [before, value];
  return undefined;
}

function framing(headers: AnswerHeaders, old: boolean): number | string | undefined {
  const { "content-length": length, "transfer-encoding": coding } = headers;
  if (coding !== undefined) {
    if (old || length !== undefined || typeof coding !== "string") return "transfer-encoding";
    return coding.toLowerCase() === "chunked" ? "chunked" : "transfer-encoding";
  }
  if (length === undefined) return undefined;
  return typeof length === "string" && LENGTH.test(length) ? Number(length) : "content-length";
}

function listed(value: string | string[] | undefined, token: string): boolean {
  return [value ?? []].flat().some((list) => list.split(",").some((each) => trimmed(each).toLowerCase() === token));
}

/** Spaces and tabs only: String.trim takes more for white. */
function trimmed(text: string): string {
  let [from, to] = [0, text.length];
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
