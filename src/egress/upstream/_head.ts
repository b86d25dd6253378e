/**
 * The head of an answer, read strictly (RFC 9112): what two readers could read differently is none. Pure.
 *
 * It is read where it lies, byte by byte: of the fields that nobody looks at no text is made, nor of values that servers
 * say all the time.
 * Invariants (Wall: T120): a line ends with CR LF and nothing else does; no folded lines, no space before a colon, no byte
 * that is no text; a length is digits, said once, and never beside chunks; chunked is the only coding.
 * Callers: _answer.ts.
 */

/** Of a field that came twice: both. */
export type HeaderValue = string | readonly string[] | undefined;

/** Those that anybody looks at. */
export class AnswerHeaders {
  connection: HeaderValue = undefined;
  "content-encoding": HeaderValue = undefined;
  "content-length": HeaderValue = undefined;
  "content-type": HeaderValue = undefined;
  "keep-alive": HeaderValue = undefined;
  metadata: HeaderValue = undefined;
  "retry-after": HeaderValue = undefined;
  "transfer-encoding": HeaderValue = undefined;
}

type Name = keyof AnswerHeaders;

export interface AnswerHead {
  readonly status: number;
  readonly headers: AnswerHeaders;
  /** Of the body; `chunked`; undefined: nothing says, or it has none. */
  readonly length: number | "chunked" | undefined;
  /** Another answer may come on the connection. */
  readonly keeps: boolean;
}

interface Known {
  readonly name: Name;
  /** Values that servers give it. */
  readonly values: readonly string[];
}

const KNOWN: readonly Known[] = [
  { name: "connection", values: ["keep-alive", "close"] },
  { name: "content-encoding", values: [] },
  { name: "content-length", values: [] },
  { name: "content-type", values: ["application/json", "text/event-stream; charset=utf-8", "text/event-stream"] },
  { name: "keep-alive", values: ["timeout=5"] },
  { name: "metadata", values: [] },
  { name: "retry-after", values: [] },
  { name: "transfer-encoding", values: ["chunked"] },
];
const MOST_LETTERS = Math.max(...KNOWN.map(({ name }) => name.length));
const BY_LENGTH: readonly (readonly Known[])[] = Array.from({ length: MOST_LETTERS + 1 }, (_, length) =>
  KNOWN.filter(({ name }) => name.length === length),
);

const LENGTH = /^[0-9]{1,15}$/;
const BODILESS: ReadonlySet<number> = new Set([204, 304]);
const PREFIX = "HTTP/1.";
/** `HTTP/1.1 200` */
const STATUS_BYTES = 12;
const CR = 0x0d;
const LF = 0x0a;
const SPACE = 0x20;
const TAB = 0x09;
const COLON = 0x3a;
/** Of each byte that may stand in a name: itself, in lower case; of another 0. */
const LOWER = Uint8Array.from({ length: 256 }, (_, byte) => {
  const letter = String.fromCharCode(byte);
  return /[!#$%&'*+.^_`|~0-9A-Za-z-]/.test(letter) ? letter.toLowerCase().charCodeAt(0) : 0;
});
/** Of each byte: whether it may stand in a value. */
const TEXT = Uint8Array.from({ length: 256 }, (_, byte) => (byte === TAB || (byte >= SPACE && byte !== 0x7f) ? 1 : 0));

/** @param end behind the last byte, without the blank line. @returns what is wrong with it, as a word for the log */
export function readHead(bytes: Buffer, from: number, end: number): AnswerHead | string {
  const status = statusOf(bytes, from, end);
  const first = textEnd(bytes, from, end);
  if (status === 0 || !endsThere(bytes, first, end)) return "status line";
  const headers = new AnswerHeaders();
  const problem = readFields(bytes, first + 2, end, headers);
  if (problem !== undefined) return problem;
  const old = bytes[from + PREFIX.length] === 0x30;
  const length = status < 200 || BODILESS.has(status) ? undefined : framing(headers, old);
  if (typeof length === "string" && length !== "chunked") return length;
  return { status, headers, length, keeps: !old && !listed(headers.connection, "close") };
}

/** `HTTP/1.1 200`, and nothing or a space behind it. @returns 0: it is none */
function statusOf(bytes: Buffer, from: number, end: number): number {
  if (end - from < STATUS_BYTES || !spells(bytes, from, PREFIX)) return 0;
  const at = from + PREFIX.length;
  const [minor, space, behind] = [bytes[at], bytes[at + 1], bytes[at + 5]];
  if ((minor !== 0x30 && minor !== 0x31) || space !== SPACE) return 0;
  if (end - from > STATUS_BYTES && behind !== SPACE && behind !== CR) return 0;
  let status = 0;
  for (let place = at + 2; place < at + 5; place++) {
    const digit = (bytes[place] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return 0;
    status = status * 10 + digit;
  }
  return status < 100 ? 0 : status;
}

/**
 * Lines of a head, or of what follows the last chunk.
 * @param into absent: they say nothing to anybody. @returns what is wrong with one
 */
export function readFields(bytes: Buffer, from: number, end: number, into?: AnswerHeaders): "header" | undefined {
  for (let at = from; at < end; ) {
    let colon = at;
    while (colon < end && LOWER[bytes[colon] ?? 0] !== 0) colon++;
    if (colon === at || colon >= end || bytes[colon] !== COLON) return "header";
    const to = textEnd(bytes, colon + 1, end);
    if (!endsThere(bytes, to, end)) return "header";
    const known = into === undefined ? undefined : knownAs(bytes, at, colon);
    if (into !== undefined && known !== undefined) keep(into, known, textOf(bytes, colon + 1, to, known));
    at = to + 2;
  }
  return undefined;
}

/** Where the text of a line is over. */
function textEnd(bytes: Buffer, from: number, end: number): number {
  let at = from;
  while (at < end && TEXT[bytes[at] ?? 0] === 1) at++;
  return at;
}

function endsThere(bytes: Buffer, at: number, end: number): boolean {
  return at === end || (bytes[at] === CR && bytes[at + 1] === LF && at + 2 < end);
}

function knownAs(bytes: Buffer, from: number, to: number): Known | undefined {
  const known = BY_LENGTH[to - from];
  if (known === undefined) return undefined;
  for (const each of known) {
    let at = 0;
    while (at < each.name.length && LOWER[bytes[from + at] ?? 0] === each.name.charCodeAt(at)) at++;
    if (at === each.name.length) return each;
  }
  return undefined;
}

/** Without the blanks around it: spaces and tabs only. */
function textOf(bytes: Buffer, from: number, to: number, { values }: Known): string {
  let [start, end] = [from, to];
  while (start < end && isBlank(bytes[start] ?? 0)) start++;
  while (end > start && isBlank(bytes[end - 1] ?? 0)) end--;
  for (const each of values) if (each.length === end - start && spells(bytes, start, each)) return each;
  return bytes.toString("latin1", start, end);
}

function spells(bytes: Buffer, from: number, text: string): boolean {
  for (let at = 0; at < text.length; at++) if (bytes[from + at] !== text.charCodeAt(at)) return false;
  return true;
}

function keep(into: AnswerHeaders, { name }: Known, value: string): void {
  const before = into[name];
  if (before === undefined) into[name] = value;
  else into[name] = typeof before === "string" ? [before, value] : [...before, value];
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

function listed(value: HeaderValue, token: string): boolean {
  if (value === undefined) return false;
  return [value].flat().some((list) => list.split(",").some((each) => trimmed(each).toLowerCase() === token));
}

/** Spaces and tabs only: String.trim takes more for white. */
function trimmed(text: string): string {
  let [from, to] = [0, text.length];
  while (from < to && isBlank(text.charCodeAt(from))) from++;
  while (to > from && isBlank(text.charCodeAt(to - 1))) to--;
  return text.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === SPACE || code === TAB;
}
