/**
 * The loads besides plain throughput: each is one figure of one server, lower or higher being better as it says.
 */
import { Pool } from "undici";
import { complete, promptOf } from "./client.ts";
import type { Served } from "./servers.ts";

export interface Scenario {
  readonly name: string;
  readonly unit: string;
  /** Milliseconds, or tokens a second. @param seed another text for each round */
  readonly run: (served: Served, seed: number) => Promise<number>;
}

const PREFIX = 1000;
const LONG_PROMPT = 2000;
const DECODES = 16;
const SAMPLES = 8;
const SAMPLE_TOKENS = 16;

const median = (list: readonly number[]): number => quantile(list, 0.5);

function quantile(list: readonly number[], share: number): number {
  const sorted = list.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

async function withPool<T>(served: Served, connections: number, work: (pool: Pool) => Promise<T>): Promise<T> {
  const pool = new Pool(served.url, { connections });
  try {
    return await work(pool);
  } finally {
    await pool.close();
  }
}

/** Median time to the first token of five prompts that share 1,000 tokens with one asked before. */
const cachedPrefix: Scenario = {
  name: "TTFT with a 1,000-token cached prefix",
  unit: "ms",
  run: (served, seed) =>
    withPool(served, 1, async (pool) => {
      const prefix = promptOf(PREFIX, seed);
      const ask = (end: number) =>
        complete(pool, served, { prompt: [...prefix, ...promptOf(24, seed + end)], maxTokens: 2, cache: true });
      await ask(1);
      const times: number[] = [];
      for (let i = 2; i < 7; i++) times.push((await ask(i)).first);
      return median(times);
    }),
};

/** Eight samples of one 1,000-token prompt. */
const samples: Scenario = {
  name: `n = ${SAMPLES} of a 1,000-token prompt, ${SAMPLE_TOKENS} tokens each`,
  unit: "ms",
  run: (served, seed) =>
    withPool(served, 1, async (pool) => {
      const wish = { prompt: promptOf(PREFIX, seed + 50), maxTokens: SAMPLE_TOKENS, n: SAMPLES };
      return (await complete(pool, served, wish)).total;
    }),
};

/** The same without sharing: eight requests that find nothing in a cache. */
const requests: Scenario = {
  name: `${SAMPLES} requests of it without a cache`,
  unit: "ms",
  run: (served, seed) =>
    withPool(served, SAMPLES, async (pool) => {
      const start = performance.now();
      const wish = { prompt: promptOf(PREFIX, seed + 60), maxTokens: SAMPLE_TOKENS };
      await Promise.all(Array.from({ length: SAMPLES }, () => complete(pool, served, wish)));
      return performance.now() - start;
    }),
};

/** 16 answers run while four 2,000-token prompts arrive one after the other: the gaps between their tokens. */
const mixed: Scenario = {
  name: `p99 gap of ${DECODES} decodes while 2,000-token prompts arrive`,
  unit: "ms",
  run: (served, seed) =>
    withPool(served, DECODES + 1, async (pool) => {
      const wish = (i: number) => ({ prompt: promptOf(32, seed + i), maxTokens: 200 });
      const running = Array.from({ length: DECODES }, (_, i) => complete(pool, served, wish(i)));
      await new Promise((done) => setTimeout(done, 1500));
      for (let i = 0; i < 4; i++)
        await complete(pool, served, { prompt: promptOf(LONG_PROMPT, seed + 100 + i), maxTokens: 1 });
      return quantile(
        (await Promise.all(running)).flatMap(({ gaps }) => gaps),
        0.99,
      );
    }),
};

const SCHEMA = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 20, maxLength: 60 },
    tags: { type: "array", items: { type: "string", minLength: 5, maxLength: 20 }, minItems: 6, maxItems: 12 },
    size: { type: "object", properties: { w: { type: "integer" }, h: { type: "integer" } }, required: ["w", "h"] },
    kind: { enum: ["one", "two", "three"] },
  },
  required: ["name", "tags", "size", "kind"],
  additionalProperties: false,
};

const structured = (schema: unknown): Scenario => ({
  name: schema === undefined ? "8 sequences, free" : "8 sequences under a JSON schema",
  unit: "tok/s",
  run: (served, seed) =>
    withPool(served, 8, async (pool) => {
      const wish = (i: number) => ({ prompt: promptOf(64, seed + i), maxTokens: 128, schema });
      const start = performance.now();
      const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => complete(pool, served, wish(i))));
      return answers.reduce((sum, { tokens }) => sum + tokens, 0) / ((performance.now() - start) / 1000);
    }),
});

export const SCENARIOS: readonly Scenario[] = [
  cachedPrefix,
  samples,
  requests,
  mixed,
  structured(undefined),
  structured(SCHEMA),
];
