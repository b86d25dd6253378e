/**
 * Logprobs as typed arrays, for the process border: a structured clone of four arrays instead of thousands of objects.
 * Called by messages' two ends: loop.ts packs, supervisor.ts unpacks.
 */
import type { GenerationEvent, PositionLogprobs, TokenLogprob } from "#core/generate.ts";
import type { StepMessage } from "./messages.ts";
import type { EngineGauges, StepReport } from "./report.ts";

/** `counts[i]` entries belong to position i: the chosen token first, then the top; 0 = no logprobs there. */
export interface PackedLogprobs {
  readonly counts: Int32Array;
  readonly tokens: Int32Array;
  readonly logprobs: Float64Array;
  readonly ranks: Int32Array;
}

export function packLogprobs(positions: readonly (PositionLogprobs | null | undefined)[]): PackedLogprobs {
  const entries: TokenLogprob[] = [];
  const counts = Int32Array.from(positions, (position) => (position ? 1 + position.top.length : 0));
  for (const position of positions) if (position) append(entries, position);
  return {
    counts,
    tokens: Int32Array.from(entries, (entry) => entry.token),
    logprobs: Float64Array.from(entries, (entry) => entry.logprob),
    ranks: Int32Array.from(entries, (entry) => entry.rank),
  };
}

export function unpackLogprobs(packed: PackedLogprobs): (PositionLogprobs | null)[] {
  let at = 0;
  const next = (): TokenLogprob => ({
    token: packed.tokens[at] as number,
    logprob: packed.logprobs[at] as number,
    rank: packed.ranks[at++] as number,
  });
  return Array.from(packed.counts, (count) => {
    if (count === 0) return null;
    const chosen = next();
    return { chosen, top: Array.from({ length: count - 1 }, next) };
  });
}

/** What a step says to its requests, in their order: prompts, then tokens. @param engine the number of who says so */
export function* eventsOf(message: StepMessage, engine: number): Generator<readonly [number, GenerationEvent]> {
  for (const { request, cachedTokens, logprobs } of message.prompts) {
    const extra = logprobs === undefined ? {} : { logprobs: unpackLogprobs(logprobs) };
    yield [request, { type: "prompt", cachedTokens, engine, ...extra }];
  }
  const { requests, samples, tokens, logprobs } = message;
  const positions = logprobs === undefined ? undefined : unpackLogprobs(logprobs);
  for (let at = 0; at < tokens.length; at++) {
    const position = positions?.[at];
    const event: GenerationEvent = {
      type: "tokens",
      sample: samples[at] as number,
      tokens: [tokens[at] as number],
      ...(position ? { logprobs: [position] } : {}),
    };
    yield [requests[at] as number, event];
  }
}

/** One step's report as the one message that carries it. */
export function packStep(step: number, report: StepReport, gauges: EngineGauges): StepMessage {
  const { tokens } = report;
  const wanted = tokens.some(({ logprobs }) => logprobs !== undefined);
  return {
    type: "step",
    step,
    requests: Float64Array.from(tokens, (entry) => entry.request),
    samples: Int32Array.from(tokens, (entry) => entry.sample),
    tokens: Int32Array.from(tokens, (entry) => entry.token),
    logprobs: wanted ? packLogprobs(tokens.map((entry) => entry.logprobs)) : undefined,
    prompts: report.prompts.map(({ request, cachedTokens, logprobs }) => ({
      request,
      cachedTokens,
      logprobs: logprobs === undefined ? undefined : packLogprobs(logprobs),
    })),
    finishes: report.finishes,
    failures: report.failures,
    pooled: report.pooled,
    gauges,
  };
}

function append(entries: TokenLogprob[], position: PositionLogprobs): void {
  entries.push(position.chosen);
  for (const entry of position.top) entries.push(entry);
}
