/**
 * Engines over the fake kernel in real processes. Tests only.
 */
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import type { FakeScript } from "./fake.ts";
import { startEngine } from "./launcher.ts";
import type { GeneratingInit } from "./messages.ts";
import type { EngineHandle, EngineOptions } from "./options.ts";
import type { PrefixCacheOptions } from "./prefix/hash.ts";

const MODEL: ModelInfo = {
  architecture: "fake",
  contextLength: 100_000,
  trainedContext: 100_000,
  vocabularySize: 64,
  parameters: 0,
  createdAt: 0,
};
export const NEVER = new AbortController().signal;
export const CACHE: PrefixCacheOptions = {
  enabled: true,
  algorithm: "sha256",
  blockSize: 16,
  reuseGenerated: false,
};
/** So many tokens never end by themselves within a test. */
export const ENDLESS = 90_000;

export function fakeKernel(script: FakeScript = {}): GeneratingInit {
  return { kernel: "fake", script: { contextPerSlot: 100_000, ...script } };
}

export function startFleet(replicas: number, changes: Partial<EngineOptions> = {}): Promise<EngineHandle> {
  return startEngine({
    model: MODEL,
    kernel: fakeKernel(),
    replicas,
    maxNumSeqs: 8,
    maxNumBatchedTokens: 64,
    contextLength: 100_000,
    schedulingPolicy: "fcfs",
    prefixCache: CACHE,
    restartAfterMs: 5,
    ...changes,
  });
}

export function request(changes: Partial<SamplingParams> = {}, more: Partial<GenerateRequest> = {}): GenerateRequest {
  const sampling = { ...NEUTRAL_SAMPLING, temperature: 0, ignoreEos: true, maxTokens: 8, ...changes };
  return { id: "r", prompt: Int32Array.from([1, 3, 4]), sampling, samples: 1, priority: 0, ...more };
}

/** What came of a request: its tokens, the engines that said so, and how it ended (a finish reason or a fault). */
export class Reader {
  readonly tokens: number[] = [];
  readonly engines: number[] = [];
  prompts = 0;
  ending: string | undefined;
  readonly done: Promise<void>;

  constructor(events: AsyncIterable<GenerationEvent>) {
    this.done = this.read(events).catch((error: { kind?: string; message: string }) => {
      this.ending = error.kind ?? error.message;
    });
  }

  private async read(events: AsyncIterable<GenerationEvent>): Promise<void> {
    for await (const event of events) {
      if (event.type === "tokens") this.tokens.push(...event.tokens);
      else if (event.type === "finish") this.ending = event.reason;
      else {
        this.prompts++;
        this.engines.push(event.engine ?? -1);
      }
    }
  }
}

export function open(engine: EngineHandle, asked: GenerateRequest, signal = NEVER): Reader {
  return new Reader(engine.generate(asked, signal));
}

/** Waits for a condition, not for a time; fails when it never comes. */
export async function until(holds: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export function isIdle(engine: EngineHandle): boolean {
  const { requests, sequences, paused, timers } = engine.counters();
  const { running, waiting } = engine.stats();
  return requests + sequences + paused + timers + running + waiting === 0;
}
