/**
 * Guesses by a smaller model of the same vocabulary, which reads the same texts in slots of its own: its likeliest
 * tokens, one after the other.
 *
 * Invariant: a slot holds the sequence's own tokens up to `real`, then guesses that were fed. What of them came true
 * stays, the rest is cut off at the next turn. A failing draft kernel costs its guesses, never a sequence.
 * Used by proposer.ts; owns its kernel.
 */
import { type Batch, createBatch, type Kernel, KernelError } from "#engine/kernel.ts";
import { largest } from "#engine/sampler/largest.ts";
import type { Sequence } from "#engine/sequence.ts";
import type { Proposer } from "./proposer.ts";

/** Tokens of prompts that it reads in one turn: those who decode wait for it. */
const CATCH_UP = 256;

interface Seat {
  readonly slot: number;
  real: number;
  readonly fed: number[];
}

interface Turn {
  readonly sequence: Sequence;
  readonly seat: Seat;
  readonly wanted: number;
  readonly guesses: number[];
}

export class DraftModel implements Proposer {
  readonly #kernel: Kernel;
  readonly #batch: Batch;
  readonly #seats = new Map<Sequence, Seat>();
  readonly #free: number[];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#batch = createBatch(kernel.limits.maxBatchTokens);
    this.#free = Array.from({ length: kernel.limits.maxSequences }, (_, slot) => slot).reverse();
  }

  propose(sequences: readonly Sequence[], wanted: readonly number[]): readonly (readonly number[])[] {
    const turns = sequences.map((sequence, at) => this.#turnOf(sequence, wanted[at] ?? 0));
    try {
      this.#guess(turns);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#startOver();
      return sequences.map(() => []);
    }
    return turns.map(({ guesses }) => guesses);
  }

  forget(sequence: Sequence): void {
    const seat = this.#seats.get(sequence);
    if (seat === undefined) return;
    this.#seats.delete(sequence);
    this.#free.push(seat.slot);
    try {
      this.#kernel.truncate(seat.slot, 0);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error; // the next one in this slot fails and starts over
    }
  }

  close(): void {
    this.#kernel.close();
  }

  #turnOf(sequence: Sequence, wanted: number): Turn {
    let seat = this.#seats.get(sequence);
    if (seat === undefined) {
      seat = { slot: this.#free.pop() as number, real: 0, fed: [] };
      this.#seats.set(sequence, seat);
    }
    // The window of the smaller model may be shorter.
    const room = this.#kernel.limits.contextPerSlot - sequence.length;
    return { sequence, seat, wanted: Math.min(wanted, room + 1), guesses: [] };
  }

  #guess(turns: readonly Turn[]): void {
    const ordered = turns.filter(({ wanted }) => wanted > 0).sort((a, b) => a.seat.slot - b.seat.slot);
    for (const { sequence, seat } of ordered) this.#keepTrue(sequence, seat);
    let ready = this.#read(ordered);
    while (ready.length > 0) {
      const going = ready.filter(({ guesses, wanted }) => guesses.length < wanted);
      if (going.length > 0) this.#forward(going, (turn) => [turn.guesses[turn.guesses.length - 1] as number]);
      ready = going;
    }
  }

  /** Of the guesses that were fed, those that are the sequence's own tokens now are kept. */
  #keepTrue(sequence: Sequence, seat: Seat): void {
    for (const token of seat.fed) {
      if (seat.real >= sequence.length || sequence.tokenAt(seat.real) !== token) break;
      seat.real++;
    }
    seat.fed.length = 0;
    // The last token's row is what the first guess comes from.
    seat.real = Math.min(seat.real, sequence.length - 1);
    this.#kernel.truncate(seat.slot, seat.real);
  }

  /** Reads what the sequences got since; those that were read to their end have their first guess. */
  #read(turns: readonly Turn[]): Turn[] {
    let budget = Math.min(this.#kernel.limits.maxBatchTokens, Math.max(CATCH_UP, turns.length));
    const reading: { readonly turn: Turn; readonly tokens: number[] }[] = [];
    // Those who are near their end first: they guess in this very turn.
    for (const turn of [...turns].sort((a, b) => missing(a) - missing(b))) {
      const count = Math.min(missing(turn), budget);
      budget -= count;
      const tokens = Array.from({ length: count }, (_, i) => turn.sequence.tokenAt(turn.seat.real + i));
      if (count > 0) reading.push({ turn, tokens });
    }
    reading.sort((a, b) => a.turn.seat.slot - b.turn.seat.slot);
    const tokensOf = new Map(reading.map(({ turn, tokens }) => [turn, tokens]));
    const read = reading.map(({ turn }) => turn);
    if (read.length > 0) this.#forward(read, (turn) => tokensOf.get(turn) ?? []);
    return read.filter(({ guesses }) => guesses.length > 0);
  }

  /** Feeds the tokens; a turn that reaches the end of what is known gets a guess. @param turns slots ascending */
  #forward(turns: readonly Turn[], tokensOf: (turn: Turn) => readonly number[]): void {
    const batch = this.#batch;
    const { prefillBlock } = this.#kernel.limits;
    const guessing: Turn[] = [];
    batch.count = 0;
    for (const turn of turns) {
      const tokens = tokensOf(turn);
      const own = turn.guesses.length === 0;
      const start = turn.seat.real + turn.seat.fed.length;
      const ends = start + tokens.length >= turn.sequence.length;
      const inBlock = prefillBlock > 1 && tokens.length >= prefillBlock;
      tokens.forEach((token, i) => {
        this.#put(token, start + i, turn.seat.slot, ends && i === tokens.length - 1, inBlock);
      });
      if (ends) guessing.push(turn);
      if (!own) turn.seat.fed.push(...tokens);
    }
    const rows = this.#kernel.forward(batch);
    for (const turn of turns) if (turn.guesses.length === 0) turn.seat.real += tokensOf(turn).length;
    for (const [at, turn] of guessing.entries()) this.#take(turn, rows[at] as Float32Array);
  }

  #put(token: number, position: number, slot: number, output: boolean, inBlock: boolean): void {
    const at = this.#batch.count++;
    this.#batch.tokens[at] = token;
    this.#batch.positions[at] = position;
    this.#batch.slots[at] = slot;
    this.#batch.adapters[at] = 0;
    this.#batch.blocks[at] = inBlock ? 1 : 0;
    this.#batch.outputs[at] = output ? 1 : 0;
  }

  #take(turn: Turn, row: Float32Array): void {
    const token = largest(row, row.length);
    if (typeof token === "string") throw new KernelError("failed", `the draft model's row is ${token}`);
    turn.guesses.push(token);
  }

  #startOver(): void {
    for (const seat of this.#seats.values()) {
      seat.real = 0;
      seat.fed.length = 0;
      try {
        this.#kernel.truncate(seat.slot, 0);
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
      }
    }
  }
}

function missing({ sequence, seat }: Turn): number {
  return sequence.length - seat.real;
}
