/**
 * A request that was read without node:http: its head is there, its body comes by pieces whose length is known.
 *
 * Invariants: no byte behind its length gets in; the body goes to one taker, once; a taker that wants no more gets no
 * more, and the connection is not read meanwhile. Private to http; made by _plain-connection.ts.
 */
import type { Socket } from "node:net";
import type { PlainHead } from "./_plain-head.ts";
import type { BodySink, Framing } from "./_request.ts";

/** What reads for it. */
export interface Reading {
  readonly socket: Socket;
  pause(): void;
  resume(): void;
}

/** Takes a body of which the beginning is there, and which may be read to where it belongs. */
export interface PlainSink extends BodySink {
  /** Before anything else: the first `size` bytes of a place that nobody else has. @returns as `take` */
  begin(place: Buffer, size: number): boolean;
  /** Where the rest may be read to; undefined: it is to be taken. */
  room(): Buffer | undefined;
  /** @param size bytes were read to `room`. @returns as `take` */
  filled(size: number): boolean;
}

const EMPTY = Buffer.alloc(0);

export class PlainRequest {
  readonly method: string;
  readonly url: string;
  readonly httpVersion = "1.1";
  readonly rawHeaders: readonly string[];
  readonly headers: Readonly<Framing>;
  readonly socket: Socket;
  /** Bytes of the body that are to come. */
  left: number;
  /** Present while the connection is read for it. */
  #reading: Reading | undefined;
  #sink: PlainSink | undefined;
  /** Where its first bytes lie, until somebody takes them. */
  #place: Buffer | undefined;
  #begun = 0;

  constructor({ method, target, rawHeaders, length }: PlainHead, reading: Reading) {
    this.method = method;
    this.url = target;
    this.rawHeaders = rawHeaders;
    this.headers = length === undefined ? UNFRAMED : framed(length);
    this.socket = reading.socket;
    this.left = length ?? 0;
    this.#reading = reading;
  }

  /** All of the body has come, as node:http calls it. */
  get complete(): boolean {
    return this.left === 0;
  }

  /** Somebody takes the body. */
  get wanted(): boolean {
    return this.#sink !== undefined;
  }

  /** What came with the head: the first `size` bytes of a place that nobody else has. */
  begin(place: Buffer, size: number): void {
    this.#place = place;
    this.#begun = size;
    this.left -= size;
  }

  /** The whole body, where it is there and nobody has taken it. */
  whole(): Buffer | undefined {
    if (this.left > 0 || this.#sink !== undefined) return undefined;
    const place = this.#place;
    this.#place = undefined;
    return place ?? EMPTY;
  }

  /** The rest of the body goes there, behind what came with the head. */
  divert(sink: PlainSink): void {
    this.#sink = sink;
    const place = this.#place;
    this.#place = undefined;
    if (place === undefined || this.#given(sink.begin(place, this.#begun))) this.#reading?.resume();
  }

  /** Where the next bytes of the body may be read to, and no others; undefined: nowhere in particular. */
  room(): Buffer | undefined {
    return this.left === 0 ? undefined : this.#sink?.room();
  }

  /**
   * @param size bytes that were read to `room`
   * @returns whether the taker wants more
   */
  filled(size: number): boolean {
    this.left -= size;
    return this.#given(this.#sink?.filled(size) ?? false);
  }

  /** @param piece of the body, `left` bytes at most, and nobody else's. @returns as `filled` */
  take(piece: Buffer): boolean {
    this.left -= piece.length;
    return this.#given(this.#sink?.take(piece) ?? false);
  }

  pause(): void {
    this.#reading?.pause();
  }

  /** Its answer is over: it keeps nobody, also where it has grown old itself (docs/decisions/0027-gateway.md). */
  release(): void {
    this.#reading = undefined;
    this.#sink = undefined;
    this.#place = undefined;
  }

  #given(more: boolean): boolean {
    if (more && this.left === 0) this.#sink?.end();
    return more;
  }
}

const UNFRAMED: Readonly<Framing> = framed(undefined);

function framed(length: number | undefined): Readonly<Framing> {
  return {
    "content-length": length === undefined ? undefined : String(length),
    "transfer-encoding": undefined,
    expect: undefined,
    upgrade: undefined,
    te: undefined,
  };
}
