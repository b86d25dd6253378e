/**
 * The head of a request as nearly every client writes it, read where it lies. Everything else is node:http's to read.
 *
 * Invariants (Wall: T132): a head that is read here is the same method, target, headers and length to Node's parser;
 * nothing frames its message but one Content-Length or none; it asks for no other protocol and for no continuation; its lines end by CR LF and are not folded. What is doubtful is not read.
 * Sources: RFC 9110, 5.6.2 and 5.5; RFC 9112, 3 and 5. Callers: _plain-connection.ts.
 */
import { markLasting } from "#base/headers.ts";

export interface PlainHead {
  readonly method: string;
  /** In origin form. */
  readonly target: string;
  /**
   * Name and value in turn, as they came; values without the spaces around them. Not the Content-Length, which `length` is:
   * so it is one list for all requests of a connection that say the same.
   */
  readonly rawHeaders: readonly string[];
  /** Of the body, in bytes; undefined: none is announced. */
  readonly length: number | undefined;
  /** The client wants no more answers on its connection. */
  readonly closes: boolean;
  /** Of the head with its blank line, in bytes. */
  readonly size: number;
  /** Where the digits of the length stand in the head; undefined: nowhere. */
  readonly digits: Digits | undefined;
}

interface Digits {
  readonly from: number;
  readonly to: number;
}

const TAB = 0x09;
const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const SLASH = 0x2f;
const ZERO = 0x30;
const COLON = 0x3a;
const DEL = 0x7f;

const END = Buffer.from("\r\n\r\n");
const VERSION = " HTTP/1.1\r\n";
const METHODS: ReadonlySet<string> = new Set(["GET", "POST", "DELETE"]);
const LENGTH = /^(?:0|[1-9][0-9]{0,9})$/;
/** Headers that say more about how a message is framed or taken than is read here. */
const SPECIAL: ReadonlySet<string> = new Set([
  "te",
  "expect",
  "trailer",
  "upgrade",
  "http2-settings",
  "proxy-connection",
  "transfer-encoding",
]);
/** Lengths of names that are looked at: most are not. */
const LENGTHS = new Uint8Array(256);
for (const name of ["host", "connection", "content-length", ...SPECIAL]) LENGTHS[name.length] = 1;

/** What a byte may be part of. */
const NAME = 1;
const VALUE = 2;
const TARGET = 4;
const KINDS = Uint8Array.from({ length: 256 }, (_, byte) => {
  const name = /[!#$%&'*+.^_`|~0-9A-Za-z-]/.test(String.fromCharCode(byte)) ? NAME : 0;
  const value = byte === TAB || (byte >= SPACE && byte !== DEL) ? VALUE : 0;
  return name | value | (byte > SPACE && byte < DEL ? TARGET : 0);
});

/** Longer heads are not remembered. */
const MOST_REMEMBERED = 2048;
/** Heads in a row that were not as the one before: then none is remembered any more. */
const MOST_CHANGES = 8;

/** The heads of one connection: clients say nearly all of them again each time. */
export class PlainHeads {
  #last: PlainHead | undefined;
  /** The bytes of that. */
  #bytes: Buffer | undefined;
  #changes = 0;

  /** As `readPlainHead`. */
  read(bytes: Buffer, size: number, mostBytes: number, mostHeaders: number): PlainHead | undefined {
    const again = this.#again(bytes, size);
    if (again !== undefined) {
      if (this.#changes > 0) markLasting(again.rawHeaders);
      this.#changes = 0;
      return again;
    }
    const head = readPlainHead(bytes, size, mostBytes, mostHeaders);
    if (head !== undefined) this.#remember(head, bytes);
    return head;
  }

  #remember(head: PlainHead, bytes: Buffer): void {
    const remembers = head.size <= MOST_REMEMBERED && ++this.#changes <= MOST_CHANGES;
    this.#last = remembers ? head : undefined;
    this.#bytes = remembers ? Buffer.from(bytes.subarray(0, head.size)) : undefined;
  }

  /** The last head with another length of as many digits, or the same. */
  #again(bytes: Buffer, size: number): PlainHead | undefined {
    const [last, before] = [this.#last, this.#bytes];
    if (last === undefined || before === undefined || size < last.size) return undefined;
    const { digits } = last;
    if (digits === undefined) return isSame(bytes, before, 0, last.size) ? last : undefined;
    const { from, to } = digits;
    if (!isSame(bytes, before, 0, from) || !isSame(bytes, before, to, last.size)) return undefined;
    const length = numberAt(bytes, from, to);
    if (length === undefined || length === last.length) return length === undefined ? undefined : last;
    return { ...last, length };
  }
}

function isSame(bytes: Buffer, before: Buffer, from: number, to: number): boolean {
  return bytes.compare(before, from, to, from, to) === 0;
}

/** Undefined: it is no length of so many digits. */
function numberAt(bytes: Buffer, from: number, to: number): number | undefined {
  if (bytes[from] === ZERO && to - from > 1) return undefined;
  let value = 0;
  for (let at = from; at < to; at++) {
    const digit = (bytes[at] as number) - ZERO;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return value;
}

/**
 * @param bytes of which the first `size` have come
 * @param mostBytes of a head. @param mostHeaders lines
 * @returns undefined: it is not all there, or not of this form
 */
export function readPlainHead(
  bytes: Buffer,
  size: number,
  mostBytes: number,
  mostHeaders: number,
): PlainHead | undefined {
  const blank = bytes.indexOf(END);
  const end = blank + END.length;
  if (blank < 0 || end > size || end > mostBytes) return undefined;
  const text = bytes.toString("latin1", 0, end);
  const space = text.indexOf(" ");
  const method = text.slice(0, space);
  if (!METHODS.has(method) || bytes[space + 1] !== SLASH) return undefined;
  const after = behind(bytes, space + 1, TARGET);
  if (!text.startsWith(VERSION, after)) return undefined;
  const fields = new Fields();
  if (!fields.read(bytes, text, after + VERSION.length)) return undefined;
  const { list, lines, length, digits, hosts, closes } = fields;
  if (hosts !== 1 || lines > mostHeaders) return undefined;
  return { method, target: text.slice(space + 1, after), rawHeaders: list, length, closes, size: end, digits };
}

class Fields {
  readonly list: string[] = [];
  lines = 0;
  hosts = 0;
  length: number | undefined;
  digits: Digits | undefined;
  closes = false;
  #connections = 0;

  /** @returns whether all of them, up to the end of `text`, are plain */
  read(bytes: Buffer, text: string, start: number): boolean {
    let at = start;
    while (at < text.length - 2) {
      const colon = behind(bytes, at, NAME);
      if (colon === at || bytes[colon] !== COLON) return false;
      let from = colon + 1;
      while (bytes[from] === SPACE) from++;
      const end = behind(bytes, from, VALUE);
      if (bytes[end] !== CR || bytes[end + 1] !== LF) return false;
      // Which of them belong to a value is the other parser's to say.
      if (bytes[from] === TAB || bytes[end - 1] === SPACE || bytes[end - 1] === TAB) return false;
      if (!this.#add(text.slice(at, colon), text.slice(from, end), from)) return false;
      at = end + 2;
    }
    return at === text.length - 2;
  }

  #add(name: string, value: string, from: number): boolean {
    this.lines++;
    const lower = LENGTHS[name.length] === 1 ? name.toLowerCase() : "";
    if (lower === "content-length") return this.#takeLength(value, from);
    this.list.push(name, value);
    switch (lower) {
      case "host":
        this.hosts++;
        return true;
      case "connection":
        return this.#takeConnection(value);
      default:
        return !SPECIAL.has(lower);
    }
  }

  #takeConnection(value: string): boolean {
    const wish = value.toLowerCase();
    this.closes = wish === "close";
    return ++this.#connections === 1 && (this.closes || wish === "keep-alive");
  }

  #takeLength(value: string, from: number): boolean {
    if (this.length !== undefined || !LENGTH.test(value)) return false;
    this.length = Number(value);
    this.digits = { from, to: from + value.length };
    return true;
  }
}

/** @returns where bytes of a kind end; there is a line's end behind them */
function behind(bytes: Buffer, start: number, kind: number): number {
  let at = start;
  while (((KINDS[bytes[at] as number] as number) & kind) !== 0) at++;
  return at;
}
