/**
 * An upstream's answer on its way to the client, with its books: what it used is read as it passes, and settled before
 * the client sees its end.
 *
 * Invariants: the reservation is settled once, whatever ends the answer (Wall: T81): with what the upstream said that it
 * used, or, where it was cut short, with what can be told from what passed; the chunk that ends the answer waits until
 * the booking is safe; a stream that only stops is a failure, however it stops; the bytes are the upstream's. Made by
 * forwarding.ts, one an answer.
 */
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { RelaySource, RelayTarget } from "#core/relay.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import { isOurs } from "#serving/_metered.ts";
import { tell } from "#wire/responses/dialect.ts";

/** Reads usage out of the bytes that pass. Keeps no more than a part of one frame. */
export interface UsageReader {
  /** Of a stream: nothing in the chunk is read, changed or held back, and it has been counted. False: `take` shall look. */
  passes?(chunk: Uint8Array): boolean;
  /** @returns what goes on to the client: the chunk itself, pieces of it, or nothing */
  take(chunk: Uint8Array): readonly Uint8Array[];
  /** No more comes. @returns what was held back */
  end(): readonly Uint8Array[];
  /** The answer has said all that it will: what follows waits for the books. */
  readonly complete: boolean;
  /** Asked when it is complete, or behind `end`: the answer stopped without saying that it was over, or is none. */
  readonly broken: boolean;
  /** The event that ends a stream which failed, where its dialect has one; undefined: that of any failure. */
  lastWords?(fault: Fault): string | undefined;
  /** What is known so far: said by the upstream, or counted. */
  used(): Usage;
}

/**
 * Resolves when the books are safe; what cannot be booked now they keep, so that a failure is as good.
 * @param lost the upstream's fault: nobody pays
 */
export type Settle = (used: Usage, lost: boolean) => Promise<void>;

const EMPTY = new Uint8Array(0);
/** How an answer ends that is whole. */
const WHOLE = Symbol("whole");

export class SettledSource implements RelaySource, RelayTarget {
  readonly #inner: RelaySource;
  readonly #reader: UsageReader;
  readonly #settle: Settle;
  readonly #keep: (() => Promise<void>) | undefined;
  #target: RelayTarget | undefined;
  /** They are made; until they are safe, what ends the answer waits. */
  #books: "open" | "made" | "safe" = "open";
  #held: Uint8Array = EMPTY;
  /** What the target is told when the books are safe. */
  #end: Fault | typeof WHOLE | undefined;
  #over = false;
  /** What should have been kept was not: nobody shall believe that it was. */
  #unkept: Fault | undefined;

  /** @param keep of a whole answer, before its end is seen. @throws Fault */
  constructor(inner: RelaySource, reader: UsageReader, settle: Settle, keep?: () => Promise<void>) {
    this.#inner = inner;
    this.#reader = reader;
    this.#settle = settle;
    this.#keep = keep;
  }

  pipe(target: RelayTarget): void {
    this.#target = target;
    this.#inner.pipe(this);
  }

  resume(): void {
    if (this.#held.length === 0) this.#inner.resume();
  }

  cancel(): void {
    if (this.#over) return;
    this.#over = true;
    this.#inner.cancel();
    this.#book(false);
  }

  write(chunk: Uint8Array, given = false): boolean {
    if (this.#target !== undefined && this.#reader.passes?.(chunk) === true) return this.#target.write(chunk);
    const rest = this.#reader.take(chunk);
    if (this.#books === "safe" || !this.#reader.complete) return this.#pass(rest);
    if (this.#reader.broken) {
      this.fail(new UpstreamFault("protocol", { sent: true, detail: "the answer is not what it says" }));
      return false;
    }
    this.#hold(rest, given);
    this.#book(false);
    this.#announce();
    return false;
  }

  /** The call's record is on its way while the books are; unless it may yet be another answer. */
  #announce(): void {
    if (this.#books !== "safe" && this.#keep === undefined) this.#target?.soon?.();
  }

  #pass(pieces: readonly Uint8Array[]): boolean {
    let more = true;
    for (const piece of pieces) more = (this.#target?.write(piece) ?? true) && more;
    return more;
  }

  /** It has to last until the books are safe. @param given it does; else no longer than this call */
  #hold(pieces: readonly Uint8Array[], given: boolean): void {
    const [only] = pieces;
    if (only === undefined) return;
    if (given && pieces.length === 1 && this.#held.length === 0) this.#held = only;
    else this.#held = Buffer.concat([this.#held, ...pieces]);
  }

  end(): void {
    const rest = this.#reader.end();
    // Between the upstream and here somebody ended the connection cleanly on its behalf: to a client it would look whole.
    if (this.#reader.broken) {
      this.fail(new UpstreamFault("reset", { sent: true, detail: "the stream ended without its last event" }));
      return;
    }
    this.#hold(rest, false);
    this.#finish(WHOLE, false);
    this.#announce();
  }

  fail(fault: Fault): void {
    // The answer had its last event: how its connection ended behind that is nothing to its client.
    if (this.#reader.complete && !this.#reader.broken) this.end();
    // A client that left is heard of here first, as the end of the call that it asked for.
    else this.#finish(fault, isOurs(fault));
  }

  #finish(end: Fault | typeof WHOLE, lost: boolean): void {
    this.#end ??= end;
    this.#book(lost);
    if (this.#books === "safe") this.#safe();
  }

  #tell(end: Fault | typeof WHOLE): void {
    this.#over = true;
    if (end === WHOLE) {
      this.#target?.end();
      return;
    }
    const last = this.#reader.lastWords?.(end);
    if (last !== undefined) {
      this.#target?.write(Buffer.from(last));
      tell(end);
    }
    this.#target?.fail(end);
  }

  #book(lost: boolean): void {
    if (this.#books !== "open") return;
    this.#books = "made";
    const whole = this.#reader.complete && !this.#reader.broken;
    const booked = this.#settle(this.#reader.used(), lost && !whole);
    const kept = whole && this.#keep !== undefined ? booked.then(this.#keep, this.#keep).catch(this.#lose) : booked;
    kept.then(this.#safe, this.#safe);
  }

  readonly #lose = (error: unknown): void => {
    this.#unkept = error instanceof Fault ? error : new Fault("internal", "Internal server error.", { cause: error });
  };

  /** The books are: what waited goes on. */
  readonly #safe = (): void => {
    this.#books = "safe";
    const keepsUp = this.#flush();
    if (this.#over) return;
    if (this.#end !== undefined) this.#tell(this.#end);
    else if (keepsUp) this.#inner.resume();
  };

  /** @returns whether the client keeps up */
  #flush(): boolean {
    const held = this.#held;
    this.#held = EMPTY;
    if (this.#unkept !== undefined && !this.#over) {
      this.#over = true;
      this.#inner.cancel();
      this.#target?.fail(this.#unkept);
    }
    if (this.#over || held.length === 0) return true;
    return this.#target?.write(held, true) ?? true;
  }
}
