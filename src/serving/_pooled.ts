/**
 * Inputs → numbers, within what the caller may use: reserved before any of it is done, settled when it is over.
 *
 * A request goes to the engine in pieces, a few at a time, so that one with a thousand inputs stands beside others in
 * the queue and not before them (Wall: T82); where the queue has no room for a piece, smaller ones are tried. Invariants: whatever ends the call, the reservation is settled once, before the answer
 * is given; what a fault of the server cut short costs nothing; who hangs up pays for the pieces that had been handed
 * over. Called by pool.ts and score.ts.
 */
import { randomUUID } from "node:crypto";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { FinishReason } from "#core/generate.ts";
import type { Meter } from "#core/metering.ts";
import { NO_USAGE } from "#core/metering.ts";
import type { PoolOutput, PoolRequest } from "#core/pool.ts";
import { isOurs } from "./_metered.ts";
import type { ServedModel } from "./models.ts";
import type { ServingObserver } from "./observe.ts";

/** Of one piece. */
const PIECE_INPUTS = 32;
const PIECE_TOKENS = 8192;
/** Pieces of one request in the engine at a time: the next one is there when the first has been computed. */
const PIECES_AT_ONCE = 2;

export interface PoolWork {
  readonly model: ServedModel;
  /** What the pieces have in common. */
  readonly request: Omit<PoolRequest, "id" | "inputs">;
  readonly inputs: readonly Int32Array[];
  readonly meter: Meter;
  readonly observer: ServingObserver;
}

export interface Pooled {
  /** As many as inputs, in their order. */
  readonly outputs: readonly PoolOutput[];
  readonly usage: Usage;
}

/** @throws Fault rate_limited, and as Backend.pool does */
export async function pooled(work: PoolWork, signal: AbortSignal): Promise<Pooled> {
  const { model, inputs, meter } = work;
  const reservation = await meter.reserve({
    model: model.names[0],
    promptTokens: tokensOf(inputs),
    completionTokens: 0,
    sequences: Math.min(inputs.length, PIECE_INPUTS * PIECES_AT_ONCE),
  });
  const run = new Run(work, signal);
  let lost = false;
  try {
    await run.all();
    await reservation.settle(run.usage());
    return { outputs: run.outputs, usage: run.usage() };
  } catch (error) {
    lost = isOurs(error);
    throw error;
  } finally {
    await reservation.settle(lost ? NO_USAGE : run.usage());
  }
}

interface Piece {
  readonly from: number;
  readonly inputs: readonly Int32Array[];
}

class Run {
  readonly outputs: PoolOutput[] = [];
  readonly #work: PoolWork;
  readonly #pieces: Piece[];
  readonly #stop = new AbortController();
  readonly #client: AbortSignal;
  readonly #signal: AbortSignal;
  readonly #arrived = performance.now();
  /** Pieces in the engine. */
  #open = 0;
  /** Tokens of the pieces that were handed over, and of those that came back. */
  #begun = 0;
  #done = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(work: PoolWork, signal: AbortSignal) {
    this.#work = work;
    this.#pieces = cut(work.inputs);
    this.#client = signal;
    this.#signal = AbortSignal.any([signal, this.#stop.signal]);
  }

  /** @throws the first failure, when nothing of the request is in the engine any more */
  async all(): Promise<void> {
    await Promise.all(Array.from({ length: PIECES_AT_ONCE }, () => this.#follow()));
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  usage(): Usage {
    return { ...NO_USAGE, promptTokens: this.#client.aborted ? this.#begun : this.#done };
  }

  async #follow(): Promise<void> {
    while (this.#failure === undefined) {
      const piece = this.#pieces.shift();
      if (piece === undefined) return;
      this.#open++;
      try {
        await this.#compute(piece);
      } catch (error) {
        if (isFull(error) && this.#open > 1) {
          // The other one goes on with it when its own has come back.
          this.#pieces.unshift(piece);
          return;
        }
        if (isFull(error) && piece.inputs.length > 1) this.#pieces.unshift(...halves(piece));
        else this.#fail(error);
      } finally {
        this.#open--;
      }
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stop.abort();
  }

  async #compute({ from, inputs }: Piece): Promise<void> {
    const { model, request, observer } = this.#work;
    const tokens = tokensOf(inputs);
    this.#begun += tokens;
    const latency = (): number => (performance.now() - this.#arrived) / 1000;
    try {
      const { outputs } = await model.backend.pool({ ...request, id: randomUUID(), inputs }, this.#signal);
      outputs.forEach((output, at) => {
        this.outputs[from + at] = output;
      });
      this.#done += tokens;
      for (const input of inputs) observer.pooled("stop", input.length, latency());
    } catch (error) {
      if (isFull(error)) this.#begun -= tokens;
      else for (const input of inputs) observer.pooled(this.#reason(), input.length, latency());
      throw error;
    }
  }

  #reason(): FinishReason {
    return this.#signal.aborted ? "abort" : "error";
  }
}

function isFull(error: unknown): boolean {
  return error instanceof Fault && error.kind === "overloaded";
}

function halves({ from, inputs }: Piece): Piece[] {
  const middle = Math.ceil(inputs.length / 2);
  return [
    { from, inputs: inputs.slice(0, middle) },
    { from: from + middle, inputs: inputs.slice(middle) },
  ];
}

function cut(inputs: readonly Int32Array[]): Piece[] {
  const pieces: { from: number; inputs: Int32Array[] }[] = [];
  let room = 0;
  inputs.forEach((input, at) => {
    const last = pieces.at(-1);
    if (last === undefined || last.inputs.length === PIECE_INPUTS || input.length > room) {
      pieces.push({ from: at, inputs: [input] });
      room = PIECE_TOKENS - input.length;
    } else {
      last.inputs.push(input);
      room -= input.length;
    }
  });
  return pieces;
}

export function tokensOf(inputs: readonly Int32Array[]): number {
  return inputs.reduce((sum, input) => sum + input.length, 0);
}
