/**
 * Beam search in place of sampling: every step of every beam is an engine request for one token with its logprobs. The
 * prefix cache spares the engine most of what the beams have in common.
 *
 * Invariants: nothing is said before all searches are over, so every failure is a plain error; when one fails or the
 * caller leaves, all are aborted before the generator ends. Called by chat.ts and complete.ts.
 */
import { randomUUID } from "node:crypto";
import type { CallEvent, ChoiceEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { PositionLogprobs } from "#core/generate.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { engineRequest, type PromptWork, startEvent, type Work } from "./_generate.ts";
import { type Beam, BeamSearch } from "./beam-search.ts";

interface Found {
  readonly beams: readonly Beam[];
  readonly cachedTokens: number;
  /** That worked on its first step. */
  readonly engine: number;
  /** Of the prompt, when asked for. */
  readonly promptLogprobs?: readonly (PositionLogprobs | null)[];
}

interface Step {
  readonly position: PositionLogprobs;
  readonly cachedTokens: number;
  readonly engine: number;
  readonly promptLogprobs?: readonly (PositionLogprobs | null)[];
}

/** @throws Fault as Backend.generate does */
export async function* beamSearch(work: Work, signal: AbortSignal): AsyncGenerator<CallEvent> {
  const started = performance.now();
  const found = await allOrNone(
    work.prompts.map((prompt) => (own: AbortSignal) => search(work, prompt, own)),
    signal,
  );
  yield startEvent(work);
  let longest = 0;
  const usage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };
  for (const [p, { beams, cachedTokens, engine, promptLogprobs }] of found.entries()) {
    const { tokens, sampling } = work.prompts[p] as PromptWork;
    const promptTokens = tokens.length;
    usage.promptTokens += promptTokens;
    usage.cachedTokens += cachedTokens;
    if (promptLogprobs !== undefined) {
      const positions = promptLogprobs.map((position) => (position === null ? null : work.printPosition(position)));
      yield { type: "prompt-logprobs", prompt: p, positions };
    }
    for (const [s, beam] of beams.entries()) {
      const output = work.makeOutput(p * work.output.n + s);
      yield* printed(beam, output, work);
      usage.completionTokens += output.tokens;
      usage.reasoningTokens += output.reasoningTokens;
      longest = Math.max(longest, output.tokens);
      work.observer.finished({
        reason: beam.ender === undefined ? "length" : "stop",
        engine,
        cachedTokens,
        maxTokens: sampling.maxTokens,
        latency: (performance.now() - started) / 1000,
        promptTokens,
        generationTokens: output.tokens,
      });
    }
  }
  work.tally.used = usage;
  work.observer.call(work.output.n, longest, found[0]?.engine ?? 0);
  yield { type: "usage", usage, final: true };
}

/** A beam through the pipeline that a sampled choice goes through. The token that ended it counts only if it is shown. */
function* printed(beam: Beam, output: ReturnType<Work["makeOutput"]>, work: Work): Generator<ChoiceEvent> {
  const { ender, positions } = beam;
  const tokens = ender !== undefined && work.output.includeStopString ? [...beam.tokens, ender] : beam.tokens;
  const asked = work.output.logprobs;
  const shown = positions.slice(0, tokens.length).map(({ chosen, top }) => ({
    chosen,
    top: asked === undefined || asked < 0 ? top : top.slice(0, asked),
  }));
  yield* output.push(tokens, asked === undefined ? undefined : shown);
  for (const event of output.end(ender === undefined ? "length" : "stop", ender))
    yield event.type === "finish" && ender !== undefined ? { ...event, stop: ender } : event;
}

/** When one fails the others are aborted, and the failure comes when they have ended. */
async function allOrNone<T>(
  works: readonly ((signal: AbortSignal) => Promise<T>)[],
  signal: AbortSignal,
): Promise<readonly T[]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const running = works.map((work) => work(either));
  try {
    return await Promise.all(running);
  } finally {
    stop.abort();
    await Promise.allSettled(running);
  }
}

async function search(work: Work, prompt: PromptWork, signal: AbortSignal): Promise<Found> {
  const { model, output, observer } = work;
  const { sampling } = prompt;
  const { endOfTurn } = model.tokenizer;
  const beams = new BeamSearch({
    width: output.n,
    promptLength: prompt.tokens.length,
    maxTokens: sampling.maxTokens,
    lengthPenalty: output.beam?.lengthPenalty ?? 1,
    enders: new Set([...(sampling.ignoreEos ? [] : endOfTurn), ...sampling.stopTokenIds]),
    endOfTurn,
  });
  // Each step begins with what the one before has computed.
  const group = randomUUID();
  let first: Step | undefined;
  let last = performance.now();
  for (let active = beams.active; active.length > 0; active = beams.active) {
    const steps = await allOrNone(
      active.map((beam) => (own: AbortSignal) => step(work, prompt, beam, group, own)),
      signal,
    );
    const now = performance.now();
    const engine = steps[0]?.engine ?? 0;
    spend(work, first === undefined ? prompt.tokens.length : 0, active.length);
    if (first === undefined) observer.firstToken((now - last) / 1000, engine);
    else observer.interToken((now - last) / 1000, engine);
    first ??= steps[0];
    last = now;
    beams.advance(steps.map(({ position }) => position));
  }
  const { cachedTokens = 0, engine = 0, promptLogprobs } = first ?? {};
  return { beams: beams.best(), cachedTokens, engine, ...(promptLogprobs === undefined ? {} : { promptLogprobs }) };
}

/** What a caller that leaves now has used: every beam's step was computed. */
function spend({ tally }: Work, promptTokens: number, completionTokens: number): void {
  const { used } = tally;
  tally.used = {
    ...used,
    promptTokens: used.promptTokens + promptTokens,
    completionTokens: used.completionTokens + completionTokens,
  };
}

/** What may follow a beam. The first step, whose beam is empty, also asks about the prompt. */
async function step(work: Work, prompt: PromptWork, beam: Beam, group: string, signal: AbortSignal): Promise<Step> {
  const { promptLogprobs } = prompt.sampling;
  const asksPrompt = beam.tokens.length === 0 && promptLogprobs !== undefined;
  const sampling = { ...stepSampling(work), ...(asksPrompt ? { promptLogprobs } : {}) };
  const request = engineRequest(work, Int32Array.from([...prompt.tokens, ...beam.tokens]), sampling, group);
  let about: Omit<Step, "position"> = { cachedTokens: 0, engine: 0 };
  let position: PositionLogprobs | undefined;
  for await (const event of work.model.backend.generate(request, signal)) {
    if (event.type === "prompt") {
      const { cachedTokens, engine = 0, logprobs } = event;
      about = { cachedTokens, engine, ...(logprobs === undefined ? {} : { promptLogprobs: logprobs }) };
    } else if (event.type === "tokens") position ??= event.logprobs?.[0];
  }
  if (signal.aborted) throw new Fault("cancelled", "The request was cancelled.");
  if (position === undefined) throw new Fault("engine_failed", "The engine ended the answer early.");
  return { ...about, position };
}

/** The token that is drawn does not matter: its position's logprobs do. */
function stepSampling({ output }: Work): SamplingParams {
  const wanted = output.logprobs ?? 0;
  const logprobs = wanted < 0 ? -1 : Math.max(2 * output.n, wanted);
  return { ...NEUTRAL_SAMPLING, temperature: 0, maxTokens: 1, ignoreEos: true, logprobs };
}
