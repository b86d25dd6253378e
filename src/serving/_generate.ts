/**
 * Prompts with their sampling → one stream of call events: `samples × prompts` engine requests, merged.
 *
 * Every sample is an engine request of its own, so that one can end on a stop string while the others go on; sample s
 * draws with `seed + s`. Invariants: `start` comes once the engine has worked on a prompt, so that a refusal is still
 * a plain error; when the caller leaves or one sample fails, all are aborted before the stream ends.
 */
import { randomUUID } from "node:crypto";
import type { CallEvent, ChoiceEvent, OutputOptions, PrintedPosition, Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { FairShare, FinishReason, GenerateRequest, GenerationEvent, PositionLogprobs } from "#core/generate.ts";
import type { Meter } from "#core/metering.ts";
import type { SamplingParams } from "#core/sampling.ts";
import { merge } from "./merge.ts";
import type { ServedModel } from "./models.ts";
import type { ServingObserver } from "./observe.ts";

/** What turns one choice's tokens into events. */
export interface ChoiceOutput {
  /** Events of these tokens. After a stop string they end with a `finish`, and `ended` is true. */
  push(tokens: readonly number[], logprobs: readonly PositionLogprobs[] | undefined): readonly ChoiceEvent[];
  /** The engine ended the sequence: what was held back, and the `finish`. */
  end(reason: FinishReason, stopToken: number | undefined): readonly ChoiceEvent[];
  readonly ended: boolean;
  /** Tokens taken so far: the stop token and those of a matched stop string count. */
  readonly tokens: number;
  readonly reasoningTokens: number;
}

export interface PromptWork {
  /** Shape [prompt length]. */
  readonly tokens: Int32Array;
  readonly text?: string;
  readonly sampling: SamplingParams;
}

export interface Work {
  readonly model: ServedModel;
  readonly prompts: readonly PromptWork[];
  readonly output: OutputOptions;
  readonly makeOutput: (choice: number) => ChoiceOutput;
  readonly printPosition: (position: PositionLogprobs) => PrintedPosition;
  readonly observer: ServingObserver;
  readonly meter: Meter;
  /** Where generating leaves what it has used, when it ends. */
  readonly tally: Tally;
  /** Tenant's part and the client's, already joined. */
  readonly cacheSalt: string;
  readonly share: FairShare;
  /** Engine requests that are open at a time; the others begin in their order as these end. Absent: all. */
  readonly atOnce?: number;
}

export interface Tally {
  used: Usage;
}

/** @throws Fault as Backend.generate does */
export async function* generate(work: Work, signal: AbortSignal): AsyncGenerator<CallEvent> {
  const run = new Run(work, signal);
  const start = startEvent(work);
  let started = false;
  try {
    for await (const event of run.events()) {
      if (!started) yield start;
      started = true;
      if (event !== "began") yield event;
    }
  } finally {
    run.ended();
  }
  if (signal.aborted) throw new Fault("cancelled", "The request was cancelled.");
  yield { type: "usage", usage: run.usage(), final: true };
}

/** What is known before any token. */
export function startEvent(work: Work): CallEvent {
  return {
    type: "start",
    model: work.model.names[0],
    prompts: work.prompts.map(({ tokens, text }) => ({
      tokenIds: Array.from(tokens),
      ...(text === undefined ? {} : { text }),
    })),
  };
}

/**
 * What a request to the engine has of the call that it belongs to.
 * @param group of the requests over the same prompt, where there are several
 */
export function engineRequest(
  work: Work,
  prompt: Int32Array,
  sampling: SamplingParams,
  group: string | undefined,
): GenerateRequest {
  const { callId, priority = 0 } = work.output;
  return {
    id: randomUUID(),
    ...(callId === undefined ? {} : { callId }),
    prompt,
    sampling,
    samples: 1,
    ...(group === undefined ? {} : { group }),
    priority,
    cacheSalt: work.cacheSalt,
    share: work.share,
    ...(work.model.lora === undefined ? {} : { adapter: work.model.lora.adapter }),
  };
}

/** "began": the engine has worked on a prompt; nothing to print. */
type RunEvent = CallEvent | "began";

class Run {
  private readonly work: Work;
  private readonly stop = new AbortController();
  private readonly signal: AbortSignal;
  private readonly outputs: ChoiceOutput[] = [];
  /** Resolved when sample 0 of the prompt has its prompt logprobs out: the other samples print after them. */
  private readonly opened: PromiseWithResolvers<void>[];
  private readonly cached: number[];
  /** Prompts that the engine has worked on. */
  private readonly begun = new Set<number>();
  private readonly arrived = performance.now();
  private readonly group: string | undefined;
  /** The one that began last. */
  private engine = 0;

  constructor(work: Work, signal: AbortSignal) {
    this.work = work;
    this.group = work.output.n > 1 ? randomUUID() : undefined;
    this.signal = AbortSignal.any([signal, this.stop.signal]);
    this.opened = work.prompts.map(() => Promise.withResolvers<void>());
    this.cached = work.prompts.map(() => 0);
  }

  events(): AsyncIterable<RunEvent> {
    const { prompts, output, atOnce } = this.work;
    const sources = prompts.flatMap((prompt, p) =>
      Array.from({ length: output.n }, (_, s) => this.sample(prompt, p, s)),
    );
    const only = sources.length === 1 ? sources[0] : undefined;
    return only ?? merge(sources, () => this.stop.abort(), atOnce);
  }

  /** Whatever ended it. */
  ended(): void {
    const { observer, output, tally } = this.work;
    tally.used = this.usage();
    observer.call(output.n, Math.max(0, ...this.outputs.map(({ tokens }) => tokens)), this.engine);
  }

  usage(): Usage {
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    return {
      promptTokens: sum(this.work.prompts.map(({ tokens }, p) => (this.begun.has(p) ? tokens.length : 0))),
      completionTokens: sum(this.outputs.map((output) => output.tokens)),
      cachedTokens: sum(this.cached),
      reasoningTokens: sum(this.outputs.map((output) => output.reasoningTokens)),
    };
  }

  private async *sample(prompt: PromptWork, p: number, s: number): AsyncGenerator<RunEvent> {
    const opened = this.opened[p];
    try {
      if (s > 0 && prompt.sampling.promptLogprobs !== undefined) await opened?.promise;
      yield* this.follow(prompt, p, s);
    } finally {
      if (s === 0) opened?.resolve();
    }
  }

  private async *follow(prompt: PromptWork, p: number, s: number): AsyncGenerator<RunEvent> {
    const choice = p * this.work.output.n + s;
    const output = this.work.makeOutput(choice);
    this.outputs[choice] = output;
    const clock = new ChoiceClock(this.work.observer, this.arrived, prompt);
    const own = new AbortController();
    const request = this.request(prompt, s);
    try {
      for await (const event of this.work.model.backend.generate(request, AbortSignal.any([this.signal, own.signal]))) {
        yield* this.answer(event, { prompt, p, s, choice, output, clock });
        if (output.ended) return;
      }
      if (!this.signal.aborted) throw new Fault("engine_failed", "The engine ended the answer early.");
    } catch (error) {
      clock.finish(this.signal.aborted ? "abort" : "error", output.tokens);
      throw error;
    } finally {
      // A stop string ends the choice, not the engine's sequence; neither does a caller that left.
      own.abort();
      clock.finish("abort", output.tokens);
    }
  }

  private request(prompt: PromptWork, s: number): GenerateRequest {
    const { promptLogprobs, seed, ...sampling } = prompt.sampling;
    const own = {
      ...sampling,
      ...(seed === undefined ? {} : { seed: seed + s }),
      // The prompt is the same for every sample.
      ...(promptLogprobs === undefined || s > 0 ? {} : { promptLogprobs }),
    };
    return engineRequest(this.work, prompt.tokens, own, this.group);
  }

  private *answer(event: GenerationEvent, at: Sample): Generator<RunEvent> {
    if (event.type === "prompt") {
      yield "began";
      at.clock.began(event);
      this.begun.add(at.p);
      this.engine = event.engine ?? 0;
      if (at.s === 0) this.cached[at.p] = event.cachedTokens;
      if (event.logprobs !== undefined) {
        const positions = event.logprobs.map((position) =>
          position === null ? null : this.work.printPosition(position),
        );
        yield { type: "prompt-logprobs", prompt: at.p, positions };
      }
      if (at.s === 0) this.opened[at.p]?.resolve();
      return;
    }
    if (event.type === "tokens") at.clock.tick();
    const events =
      event.type === "tokens"
        ? at.output.push(event.tokens, event.logprobs)
        : at.output.end(event.reason, event.stopToken);
    for (const printed of events) {
      if (printed.type === "finish") at.clock.finish(event.type === "finish" ? event.reason : "stop", at.output.tokens);
      yield printed;
      if (this.work.output.runningUsage) yield this.runningUsage(at);
    }
  }

  private runningUsage({ prompt, choice, output, p }: Sample): CallEvent {
    const usage = {
      promptTokens: prompt.tokens.length,
      completionTokens: output.tokens,
      cachedTokens: this.cached[p] ?? 0,
      reasoningTokens: output.reasoningTokens,
    };
    return { type: "usage", usage, final: false, choice };
  }
}

interface Sample {
  readonly prompt: PromptWork;
  readonly p: number;
  readonly s: number;
  readonly choice: number;
  readonly output: ChoiceOutput;
  readonly clock: ChoiceClock;
}

/** Times of one choice, for the observer. */
class ChoiceClock {
  private readonly observer: ServingObserver;
  private readonly arrived: number;
  private readonly prompt: PromptWork;
  private cachedTokens = 0;
  private engine = 0;
  private first: number | undefined;
  private last = 0;
  private finished = false;

  constructor(observer: ServingObserver, arrived: number, prompt: PromptWork) {
    this.observer = observer;
    this.arrived = arrived;
    this.prompt = prompt;
  }

  began({ cachedTokens, engine = 0 }: Extract<GenerationEvent, { type: "prompt" }>): void {
    this.cachedTokens = cachedTokens;
    this.engine = engine;
  }

  tick(): void {
    const now = performance.now();
    if (this.first === undefined) {
      this.first = now;
      this.observer.firstToken((now - this.arrived) / 1000, this.engine);
    } else this.observer.interToken((now - this.last) / 1000, this.engine);
    this.last = now;
  }

  /** The first call counts. */
  finish(reason: FinishReason, generationTokens: number): void {
    if (this.finished) return;
    this.finished = true;
    const latency = (performance.now() - this.arrived) / 1000;
    const perToken =
      this.first === undefined || generationTokens < 2
        ? undefined
        : (this.last - this.first) / 1000 / (generationTokens - 1);
    this.observer.finished({
      reason,
      latency,
      engine: this.engine,
      promptTokens: this.prompt.tokens.length,
      cachedTokens: this.cachedTokens,
      maxTokens: this.prompt.sampling.maxTokens,
      generationTokens,
      ...(perToken === undefined ? {} : { perToken }),
    });
  }
}
