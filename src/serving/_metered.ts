/**
 * Work, within what its caller may use: reserved before any of it is done, settled when it is over.
 *
 * Invariants: whatever ends the stream, the reservation is settled once; the last event comes when the booking is
 * safe, so that what a client has seen the end of has been counted. What a fault of the server cut short costs
 * nothing; what a client cut short costs what was done. Called by chat.ts, complete.ts, responses.ts and
 * generative-scoring.ts.
 */
import type { CallEvent } from "#core/calls.ts";
import { Fault, type FaultKind } from "#core/fault.ts";
import { NO_USAGE, type Reservation } from "#core/metering.ts";
import { beamSearch } from "./_beam.ts";
import { generate, type Work } from "./_generate.ts";
import { countedAs } from "./models.ts";

/** @throws Fault rate_limited, and as Backend.generate does */
export async function* answer(work: PreparedWork, signal: AbortSignal): AsyncGenerator<CallEvent> {
  yield* await reserved(work, signal);
}

/**
 * For work that is promised before it begins: what is refused is refused now. Who calls draws on the stream, whatever
 * happens: its reservation is settled by that alone.
 * @throws Fault rate_limited
 */
export async function reserved(work: PreparedWork, signal: AbortSignal): Promise<AsyncGenerator<CallEvent>> {
  return run(work, await work.meter.reserve(estimate(work)), signal);
}

export type PreparedWork = Omit<Work, "tally">;

async function* run(work: PreparedWork, reservation: Reservation, signal: AbortSignal): AsyncGenerator<CallEvent> {
  const tally = { used: NO_USAGE };
  let lost = false;
  try {
    const source = work.output.beam === undefined ? generate : beamSearch;
    for await (const event of source({ ...work, tally }, signal)) {
      if (event.type === "usage" && event.final) await reservation.settle(event.usage);
      yield event;
    }
  } catch (error) {
    lost = isOurs(error);
    throw error;
  } finally {
    await reservation.settle(lost ? NO_USAGE : tally.used);
  }
}

function estimate({ model, prompts, output: { n }, atOnce = Number.POSITIVE_INFINITY }: PreparedWork) {
  const sum = (of: (prompt: Work["prompts"][number]) => number): number =>
    prompts.reduce((total, prompt) => total + of(prompt), 0);
  return {
    model: countedAs(model),
    promptTokens: sum(({ tokens }) => tokens.length),
    completionTokens: sum(({ sampling }) => sampling.maxTokens * n),
    sequences: Math.min(prompts.length * n, atOnce),
  };
}

const OURS: ReadonlySet<FaultKind> = new Set<FaultKind>([
  "engine_failed",
  "engine_unavailable",
  "policy_unavailable",
  "draining",
  "upstream_unavailable",
  "upstream_failed",
  "upstream_timeout",
  "internal",
]);

/** Whether the server is to blame. */
export function isOurs(error: unknown): boolean {
  return !(error instanceof Fault) || OURS.has(error.kind);
}
