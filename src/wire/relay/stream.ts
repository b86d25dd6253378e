/**
 * A stream of events on its way through: what it used, how many events it had and how it ended, read as it passes.
 *
 * Invariant: what comes out is what went in, byte for byte, but for events that are told to be left out or to show
 * other values (a model's name, a response's id). At most one event is held, and no more of it than a bound; an event
 * that cannot matter is passed over by native searches.
 */
import type { JsonScan } from "#base/json-scan.ts";
import { cutsOf, spliced } from "#base/splice.ts";
import type { Usage } from "#core/calls.ts";
import { memberOf, scanned, usageIn } from "./usage.ts";

export interface StreamOptions {
  /** Leave out the chunk that holds usage alone: it was asked for on the server's account. */
  readonly strip?: boolean;
  /** What the server says in place of the upstream. */
  readonly shown?: Shown;
  /** Keep the response that the stream ends with. */
  readonly keeps?: boolean;
}

/** Members that stand in an answer, or in what a stream's event wraps, whatever the upstream wrote. */
export interface Shown {
  /** Of an object that has one of these. */
  readonly where: readonly string[];
  /** By name, as JSON text. */
  readonly edits: ReadonlyMap<string, string>;
}

/** A longer event is passed on unread. */
const MAX_EVENT = 1024 * 1024;
/** Of a stream whose last event has the whole answer once more. */
const MAX_WHOLE_EVENT = 32 * MAX_EVENT;
const LINE_FEED = 0x0a;
const RETURN = 0x0d;
/** Without the quote before it, of which each event has many: a search looks at every place that begins like it. */
const USAGE = Buffer.from('usage"');
const DATA = Buffer.from("data:");
const OPENING = Buffer.from('data: {"');
const ERROR = Buffer.from('{"error"');
const RESPONSE = Buffer.from('"response"');
const NONE: readonly Uint8Array[] = [];

/** Ends of a stream by the name of their event; "data: [DONE]" is OpenAI's. */
const ENDS = ["message_stop", "response.completed", "response.failed", "response.incomplete"];
const WRAPPERS = ["message", "response"];

export class StreamReader {
  /** Events with data so far, the final marker not among them. */
  events = 0;
  /** The last that was told. */
  usage: Usage | undefined;
  /** Events since then. */
  since = 0;
  /** The final marker came: the answer is whole. */
  ended = false;
  /** An event says that the answer failed. */
  failed = false;
  /** The response as it began, of a stream that shows it in the server's words. */
  first: Uint8Array | undefined;
  /** As the upstream wrote it, where it is kept. */
  response: Uint8Array | undefined;
  private readonly strip: boolean;
  private readonly shown: Shown | undefined;
  private readonly keeps: boolean;
  /** Every event may show what the server says otherwise, and not only one that wraps a response. */
  private readonly anywhere: boolean;
  private readonly most: number;
  /** Of the event that has begun in earlier chunks. */
  private held: Uint8Array[] = [];
  private heldBytes = 0;
  /** The event is too long to be read. */
  private overlong = false;
  /** Bytes of the line that has begun, without a carriage return at its end. */
  private line = 0;

  constructor({ strip = false, shown, keeps = false }: StreamOptions = {}) {
    this.strip = strip;
    this.shown = shown;
    this.keeps = keeps;
    this.anywhere = shown?.where.includes("model") === true;
    this.most = shown === undefined || this.anywhere ? MAX_EVENT : MAX_WHOLE_EVENT;
  }

  /**
   * An event and nothing else, in one line of data with nothing that is read or changed in it, as nearly all are: it is
   * counted here, and passes as it is.
   * @returns false: it is something else, and was not looked at
   */
  passes(chunk: Uint8Array): boolean {
    const last = chunk.length - 1;
    // No event has begun before, and this one is not an error's.
    if (this.heldBytes > 0 || !startsAt(chunk, 0, OPENING) || chunk[OPENING.length] === 0x65) return false;
    const bytes = bufferOf(chunk);
    if (bytes.indexOf(LINE_FEED) !== last - 1 || bytes[last] !== LINE_FEED || this.matters(bytes)) return false;
    this.events++;
    this.since++;
    return true;
  }

  /** @returns what is passed on; pieces share the chunk's memory, so that they are good until it is used again */
  take(chunk: Uint8Array): readonly Uint8Array[] {
    const changes = this.strip || this.shown !== undefined;
    const bytes = bufferOf(chunk);
    const out: Uint8Array[] = [];
    // A frame that lies in this chunk in whole can hold usage only if the chunk does.
    const mayHold = this.matters(bytes);
    let start = 0;
    let passed = 0;
    for (let end = this.boundary(bytes, 0); end > 0; end = this.boundary(bytes, end)) {
      const joined = this.held.length > 0;
      const own = start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
      const frame = joined ? Buffer.concat([...this.held, own]) : own;
      const replaced = this.overlong ? undefined : this.event(frame, joined || mayHold);
      if (changes && (joined || replaced !== undefined)) {
        if (start > passed) out.push(bytes.subarray(passed, start));
        out.push(...(replaced ?? [frame]));
        passed = end;
      }
      this.release();
      start = end;
    }
    if (!changes) {
      this.hold(bytes.subarray(start));
      return [chunk];
    }
    if (passed === 0 && start === bytes.length) return [chunk];
    if (start > passed) out.push(bytes.subarray(passed, start));
    return start < bytes.length ? [...out, ...this.holdBack(bytes.subarray(start))] : out;
  }

  /** The stream has ended. @returns what was held back of an event that is not whole */
  end(): readonly Uint8Array[] {
    const rest = this.strip || this.shown !== undefined ? this.held : NONE;
    this.held = [];
    return rest;
  }

  /** @returns behind the blank line that ends an event, from a place on; 0: none ends here */
  private boundary(bytes: Buffer, from: number): number {
    if (from === bytes.length) return 0;
    for (let at = from; ; ) {
      const feed = bytes.indexOf(LINE_FEED, at);
      const stop = feed < 0 ? bytes.length : feed;
      const returned = stop > at && bytes[stop - 1] === RETURN ? 1 : 0;
      this.line += stop - at - returned;
      if (feed < 0) return 0;
      const blank = this.line === 0;
      this.line = 0;
      at = feed + 1;
      if (blank) return at;
      // Nearly every event ends so; a search costs more than a look.
      if (bytes[at] === LINE_FEED) return at + 1;
    }
  }

  private release(): void {
    if (this.held.length > 0) this.held = [];
    this.heldBytes = 0;
    this.overlong = false;
  }

  private hold(rest: Uint8Array): void {
    if (rest.length === 0 || this.overlong) return;
    this.heldBytes += rest.length;
    this.overlong = this.heldBytes > this.most;
    if (this.overlong) this.held = [];
    else this.held.push(Uint8Array.from(rest));
  }

  /** @returns what is passed on at once: nothing, unless the event is too long to be held */
  private holdBack(rest: Uint8Array): readonly Uint8Array[] {
    if (this.overlong) return [rest];
    const before = this.held;
    this.hold(rest);
    return this.overlong ? [...before, rest] : NONE;
  }

  /** @returns what takes its place; undefined: it stays */
  private event(frame: Buffer, mayHold: boolean): readonly Uint8Array[] | undefined {
    const first = frame[0];
    if (first === 0x65) this.named(frame);
    else if (first === 0x64 && isDone(frame)) {
      this.ended = true;
      return undefined;
    }
    const from = dataOf(frame);
    if (from < 0) return undefined;
    this.events++;
    this.since++;
    if (startsAt(frame, from, ERROR)) this.failed = true;
    if (!mayHold || !this.matters(frame)) return undefined;
    return this.inspect(frame, from);
  }

  /** Whether something may stand in it that is read or changed. */
  private matters(bytes: Buffer): boolean {
    return this.anywhere || bytes.includes(USAGE) || (this.shown !== undefined && bytes.includes(RESPONSE));
  }

  /** `event: NAME` */
  private named(frame: Buffer): void {
    const line = frame.toString("latin1", 0, Math.min(frame.length, 64));
    const name = /^event: ?([^\r\n]*)/.exec(line)?.[1] ?? "";
    if (ENDS.includes(name)) this.ended = true;
    if (name === "error" || name === "response.failed") this.failed = true;
  }

  private inspect(frame: Buffer, from: number): readonly Uint8Array[] | undefined {
    const feed = frame.indexOf(LINE_FEED, from);
    const data = frame.subarray(from, feed < 0 ? frame.length : feed);
    const scan = scanned(data);
    if (scan === undefined) return undefined;
    const usage = usageIn(data, scan);
    if (usage !== undefined) {
      this.usage = merged(this.usage, usage);
      this.since = 0;
    }
    if (this.strip && usage !== undefined && isUsageAlone(scan)) {
      this.events--;
      return NONE;
    }
    if (this.keeps && this.ended && !this.failed) this.response ??= responseIn(data, scan);
    if (this.shown === undefined) return undefined;
    if (!this.anywhere) this.first ??= responseIn(data, scan);
    return shownIn(frame, from, data, scan, this.shown);
  }
}

/** Messages tells the input first and the output last. */
function merged(before: Usage | undefined, now: Usage): Usage {
  if (before === undefined || now.promptTokens > 0) return now;
  return { ...now, promptTokens: before.promptTokens, cachedTokens: before.cachedTokens };
}

function isUsageAlone(scan: JsonScan): boolean {
  const choices = memberOf(scan, "choices");
  return choices?.kind === "array" && choices.count === 0;
}

/** The same memory. */
function bufferOf(chunk: Uint8Array): Buffer {
  return Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

/** Byte by byte: of most events the first tells. */
function startsAt(frame: Uint8Array, from: number, start: Buffer): boolean {
  for (let at = 0; at < start.length; at++) if (frame[from + at] !== start[at]) return false;
  return true;
}

function isDone(frame: Buffer): boolean {
  if (frame[5] !== 0x5b && frame[6] !== 0x5b) return false;
  return /^data: ?\[DONE\]\r?\n/.test(frame.toString("latin1", 0, Math.min(frame.length, 16)));
}

/** Where the data of the first line that has some begins; -1: there is none. */
function dataOf(frame: Buffer): number {
  for (let at = 0; at < frame.length; ) {
    if (startsAt(frame, at, DATA)) return frame[at + 5] === 0x20 ? at + 6 : at + 5;
    const feed = frame.indexOf(LINE_FEED, at);
    if (feed < 0) return -1;
    at = feed + 1;
  }
  return -1;
}

function shownIn(
  frame: Buffer,
  from: number,
  data: Buffer,
  scan: JsonScan,
  shown: Shown,
): readonly Uint8Array[] | undefined {
  const body = withShown(data, scan, shown);
  return body === undefined ? undefined : [frame.subarray(0, from), ...body, frame.subarray(from + data.length)];
}

/** A copy. */
function responseIn(data: Buffer, scan: JsonScan): Uint8Array | undefined {
  const member = memberOf(scan, "response");
  return member?.kind === "object" ? Uint8Array.from(data.subarray(member.start, member.end)) : undefined;
}

/**
 * An answer, or an event's data, that shows what the server says.
 * @returns undefined: there is nothing in it that would
 */
export function withShown(
  body: Uint8Array,
  scan: JsonScan,
  { where, edits }: Shown,
): readonly Uint8Array[] | undefined {
  const holds = ({ members }: JsonScan): boolean =>
    members.some(({ name, kind }) => kind !== "null" && where.includes(name));
  if (holds(scan)) return spliced(body, cutsOf(scan, edits));
  const wrapped = scan.members.find(({ name, kind }) => kind === "object" && WRAPPERS.includes(name));
  const inner = wrapped && scanned(body.subarray(wrapped.start, wrapped.end));
  if (wrapped === undefined || inner === undefined || !holds(inner)) return undefined;
  const cuts = cutsOf(inner, edits).map((one) => ({
    ...one,
    ...{ start: one.start + wrapped.start, end: one.end + wrapped.start },
  }));
  return spliced(body, cuts);
}
