/**
 * Where the members of a JSON text begin and end, found in its bytes: for what is passed on, so that it need not be
 * turned into values and back. RFC 8259 in full, so that our reading of a boundary is any other parser's.
 *
 * Invariant: what is taken here JSON.parse takes, with these members at these places. What parseJson refuses is refused
 * too, except a key that stands twice in an object below the first level, unless it is a watched one: a parser sees no
 * other boundary for it, and looking would cost more than all the rest. Time is linear; strings are passed over by vector
 * instructions, where there are some.
 *
 * Wall: T125.
 *
 * Callers: wire/relay. Not reentrant and needs not be: a scan never waits.
 */
import { isUtf8 } from "node:buffer";
import {
  CLOSE_BRACE,
  CLOSE_BRACKET,
  COLON,
  COMMA,
  DIGIT_0,
  DIGIT_9,
  JsonTokens,
  MINUS,
  OPEN_BRACE,
  OPEN_BRACKET,
  QUOTE,
  SAFE_DIGITS,
  SPACE,
} from "./_json-tokens.ts";
import { JsonError } from "./json.ts";
import { FORBIDDEN, NOTHING_WATCHED, nameAt, type WatchedKeys } from "./json-keys.ts";

export type JsonKind = "object" | "array" | "string" | "number" | "true" | "false" | "null";

/** A member of the outermost object, or an element of the outermost list. */
export interface JsonMember {
  /** As it is spelled after its escapes; "" for an element. */
  readonly name: string;
  /** Of the key's first quote; an element's own start. */
  readonly keyStart: number;
  readonly start: number;
  /** Behind the value's last byte. */
  readonly end: number;
  readonly kind: JsonKind;
  /** Children of the value; 0: none, or no container. */
  readonly count: number;
  /** The value and all that is in it. */
  readonly values: number;
  /** Levels of containers, the value itself the first; 0: no container. */
  readonly depth: number;
  /** Of the lists on each level the most children: [0] is the value's own, if it is a list. */
  readonly widest: readonly number[];
  /** Kind of the first child, if it has one. */
  readonly first: JsonKind | undefined;
  /** Bits of the watched keys that stand anywhere in the value. */
  readonly watched: number;
}

export interface JsonScan {
  readonly kind: JsonKind;
  readonly start: number;
  readonly end: number;
  readonly members: readonly JsonMember[];
}

export interface ScanLimits {
  /** Nesting of arrays and objects, 128 at most; 64 unless said. */
  readonly maxDepth?: number;
  /** Values in all; 4,000,000 unless said. */
  readonly maxValues?: number;
  /** Members of the outermost container; 1024 unless said. */
  readonly maxMembers?: number;
  /** False: without vector instructions, as where there is no WebAssembly. The verdict is the same. */
  readonly vectors?: boolean;
}

const MAX_DEPTH = 64;
const DEEPEST = 128;
/** Members whose names are compared one with another; beyond, a set is cheaper. */
const FEW = 24;
const MAX_VALUES = 4_000_000;
const MAX_MEMBERS = 1024;
/** Levels whose widest list is told apart. */
const LEVELS = 8;

/**
 * @param watched keys that are looked for at every depth, escaped spellings included
 * @throws JsonError with a byte offset
 */
export function scanJson(bytes: Uint8Array, watched: WatchedKeys = NOTHING_WATCHED, limits: ScanLimits = {}): JsonScan {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let found: JsonScan;
  try {
    found = scanner.scan(buffer, watched, limits);
  } catch (error) {
    // What is no text at all is told as that, whatever else is wrong with it.
    requireUtf8(buffer);
    throw error;
  }
  if (!scanner.ascii) requireUtf8(buffer);
  return found;
}

/** Of most texts the scan knows it without this look at each byte. */
function requireUtf8(bytes: Buffer): void {
  if (!isUtf8(bytes)) throw new JsonError("the text is not valid UTF-8", "", 0);
}

/** Of a value without lists. Never added to. */
const NO_LISTS: number[] = [];

// Of each open container: whether it is an object, its children so far, the watched keys it has itself. Shared by all
// scans, as no two run at a time.
const objects = new Uint8Array(DEEPEST);
const counts = new Int32Array(DEEPEST);
const own = new Int32Array(DEEPEST);

class Scanner extends JsonTokens {
  /** The text that was taken last is. */
  get ascii(): boolean {
    return !this.wide;
  }

  private watched = NOTHING_WATCHED;
  private maxDepth = MAX_DEPTH;
  private maxMembers = MAX_MEMBERS;
  private valuesLeft = MAX_VALUES;
  private depth = 0;

  private members: JsonMember[] = [];
  private names: Set<string> | undefined;
  private keyStart = 0;
  // Of the member that is being read.
  private start = 0;
  private kind: JsonKind = "null";
  private first: JsonKind | undefined;
  private count = 0;
  private valuesBefore = 0;
  private deepest = 0;
  private found = 0;
  private widest: number[] = NO_LISTS;

  scan(bytes: Buffer, watched: WatchedKeys, limits: ScanLimits): JsonScan {
    this.read(bytes, limits.vectors ?? true);
    this.watched = watched;
    this.maxDepth = Math.min(limits.maxDepth ?? MAX_DEPTH, DEEPEST);
    this.maxMembers = limits.maxMembers ?? MAX_MEMBERS;
    this.valuesLeft = limits.maxValues ?? MAX_VALUES;
    this.depth = 0;
    this.members = [];
    this.names = undefined;
    this.widest = NO_LISTS;
    try {
      return this.document();
    } finally {
      this.leave();
    }
  }

  private document(): JsonScan {
    this.next();
    const start = this.at;
    const kind = this.kindHere();
    do this.begin();
    while (this.finish());
    const end = this.at;
    this.next();
    if (this.at < this.bytes.length) this.fail("there is text after the value");
    return { kind, start, end, members: this.members };
  }

  private kindHere(): JsonKind {
    switch (this.bytes[this.at]) {
      case OPEN_BRACE:
        return "object";
      case OPEN_BRACKET:
        return "array";
      case QUOTE:
        return "string";
      case 0x74:
        return "true";
      case 0x66:
        return "false";
      case 0x6e:
        return "null";
      default:
        return "number";
    }
  }

  /** Reads up to the end of a scalar or of an empty container: from there on `finish` goes on. */
  private begin(): void {
    for (;;) {
      let c = this.next();
      if (--this.valuesLeft < 0) this.fail("the text holds too many values");
      if (this.depth <= 2) this.note();
      if (c >= DIGIT_0 && c <= DIGIT_9 && this.depth > 1 && objects[this.depth - 1] === 0) c = this.integers();
      if (c === OPEN_BRACE) {
        if (!this.open(true)) return;
      } else if (c === OPEN_BRACKET) {
        if (!this.open(false)) return;
      } else {
        this.scalar(c);
        return;
      }
    }
  }

  /** What is kept of the outermost container's children, and of their first child. */
  private note(): void {
    if (this.depth === 1) {
      this.start = this.at;
      this.kind = this.kindHere();
      this.first = undefined;
      this.count = 0;
      this.valuesBefore = this.valuesLeft + 1;
      this.deepest = 0;
      this.found = 0;
      this.widest = NO_LISTS;
    } else if (this.depth === 2 && counts[1] === 0) this.first = this.kindHere();
  }

  /**
   * Plain whole numbers in a list, such as token ids are, as long as a comma follows at once.
   * @returns the byte that the next value, which has been counted, begins with
   */
  private integers(): number {
    const { bytes } = this;
    let passed = 0;
    let at = this.at;
    for (let start = at; ; ) {
      let c = bytes[at] as number;
      while (c >= DIGIT_0 && c <= DIGIT_9) c = bytes[++at] as number;
      const plain =
        c === COMMA && at > start && (bytes[start] !== DIGIT_0 || at === start + 1) && at - start < SAFE_DIGITS;
      if (!plain) {
        this.at = start;
        break;
      }
      passed++;
      at++;
      if (bytes[at] === SPACE) at++;
      start = at;
    }
    counts[this.depth - 1] = (counts[this.depth - 1] ?? 0) + passed;
    this.valuesLeft -= passed;
    if (this.valuesLeft < 0) this.fail("the text holds too many values");
    return this.next();
  }

  private scalar(c: number): void {
    if (c === QUOTE) this.string();
    else if (c === MINUS || (c >= DIGIT_0 && c <= DIGIT_9)) this.number();
    else if (c === 0x74) this.word("true");
    else if (c === 0x66) this.word("false");
    else if (c === 0x6e) this.word("null");
    else this.fail(c < 0 ? "the text ends where a value should stand" : "this is not a JSON value");
  }

  /** @returns whether a value follows; else the container was empty and is closed */
  private open(object: boolean): boolean {
    if (this.depth >= this.maxDepth) this.fail(`values nest deeper than ${this.maxDepth}`);
    this.at++;
    const depth = this.depth;
    objects[depth] = object ? 1 : 0;
    counts[depth] = 0;
    own[depth] = 0;
    this.depth = depth + 1;
    if (depth >= this.deepest) this.deepest = depth;
    if (this.next() !== (object ? CLOSE_BRACE : CLOSE_BRACKET)) {
      if (object) this.key();
      return true;
    }
    this.at++;
    this.depth = depth;
    return false;
  }

  /** A value has ended. @returns whether another follows */
  private finish(): boolean {
    for (;;) {
      const depth = this.depth;
      if (depth === 0) return false;
      if (depth === 1) this.keep();
      const count = (counts[depth - 1] ?? 0) + 1;
      counts[depth - 1] = count;
      const object = objects[depth - 1] === 1;
      const c = this.next();
      if (c === COMMA) {
        this.at++;
        if (object) this.key();
        return true;
      }
      if (c !== (object ? CLOSE_BRACE : CLOSE_BRACKET))
        this.fail(object ? "a comma or } should stand here" : "a comma or ] should stand here");
      this.at++;
      this.depth = depth - 1;
      if (depth === 2) this.count = count;
      if (!object && depth >= 2 && depth < LEVELS + 2) this.widen(depth - 2, count);
    }
  }

  private widen(level: number, count: number): void {
    if (this.widest === NO_LISTS) this.widest = [];
    for (let at = this.widest.length; at <= level; at++) this.widest[at] = 0;
    if (count > (this.widest[level] ?? 0)) this.widest[level] = count;
  }

  private keep(): void {
    if (this.members.length >= this.maxMembers) this.fail(`there are more than ${this.maxMembers} members`);
    this.members.push({
      name: this.name,
      keyStart: objects[0] === 1 ? this.keyStart : this.start,
      start: this.start,
      end: this.at,
      kind: this.kind,
      count: this.count,
      values: this.valuesBefore - this.valuesLeft,
      depth: this.deepest,
      widest: this.widest,
      first: this.first,
      watched: this.found,
    });
  }

  private key(): void {
    if (this.next() !== QUOTE) this.fail("a key should stand here");
    const from = this.at + 1;
    this.string();
    const to = this.at - 1;
    if (this.depth === 1) this.rename(from, to);
    const bit = this.escaped ? this.watched.bit(this.decode(from, to)) : this.watched.bitAt(this.bytes, from, to);
    if (bit !== 0) this.see(bit);
    if (this.next() !== COLON) this.fail("a colon should stand here");
    this.at++;
  }

  private rename(from: number, to: number): void {
    this.keyStart = from - 1;
    this.name = this.escaped ? this.decode(from, to) : nameAt(this.bytes, from, to);
    if (this.isKnown(this.name)) this.fail("the key stands twice in one object");
  }

  private isKnown(name: string): boolean {
    const { members } = this;
    if (members.length < FEW) {
      for (const member of members) if (member.name === name) return true;
      return false;
    }
    this.names ??= new Set(members.map((member) => member.name));
    return this.names.size === this.names.add(name).size;
  }

  private see(bit: number): void {
    if (bit === FORBIDDEN) this.fail("the key __proto__ is not allowed");
    const before = own[this.depth - 1] ?? 0;
    if ((before & bit) !== 0) this.fail("the key stands twice in one object");
    own[this.depth - 1] = before | bit;
    // A key of the outermost object belongs to no member's value.
    if (this.depth > 1) this.found |= bit;
  }

  /** The text of a string with escapes, which has been checked. */
  private decode(from: number, to: number): string {
    return JSON.parse(this.bytes.toString("utf8", from - 1, to + 1)) as string;
  }
}

/** Made once, as no two scans run at a time. */
const scanner = new Scanner();
