/**
 * Sampling cost: microseconds per sequence per step, best of 7 rounds, at vocabularies of 32k and 152k.
 *
 * Run: node bench/sampler.ts. Rows look like a model's: a few likely tokens over a long, roughly normal tail.
 * Prints one JSON object with the machine's facts; needs no model.
 */
import { cpus } from "node:os";
import { NEUTRAL_SAMPLING, type SamplingParams } from "#core/sampling.ts";
import { uniform } from "#engine/sampler/random.ts";
import { Sampler, SequenceSampler } from "#engine/sampler/sampler.ts";

const ROUNDS = 7;
const ROUND_MS = 60;

const CASES: Readonly<Record<string, Partial<SamplingParams>>> = {
  greedy: { temperature: 0 },
  "top-40 + top-p + temperature": { topK: 40, topP: 0.9, temperature: 0.8 },
  "top-1000": { topK: 1000 },
  "temperature, whole vocabulary": { temperature: 1 },
  "min-p 0.05": { minP: 0.05 },
  "top-p 0.9, whole vocabulary": { topP: 0.9 },
  "top-p 0.9 at temperature 2": { topP: 0.9, temperature: 2 },
  "penalties over 500 tokens + top-40": { topK: 40, repetitionPenalty: 1.1, frequencyPenalty: 0.1 },
  "greedy + 20 logprobs": { temperature: 0, logprobs: 20 },
  "top-40 + 1 logprob": { topK: 40, logprobs: 1 },
};

function rowOf(vocabulary: number): Float32Array {
  const normal = (index: number) =>
    Math.sqrt(-2 * Math.log(1 - uniform(1, index))) * Math.cos(2 * Math.PI * uniform(2, index));
  const row = Float32Array.from({ length: vocabulary }, (_, index) => normal(index) * 2.2);
  for (let likely = 0; likely < 30; likely++) row[(likely * 7919) % vocabulary] = 16 - likely / 2;
  return row;
}

function measure(vocabulary: number, changes: Partial<SamplingParams>): number {
  const raw = rowOf(vocabulary);
  const row = raw.slice();
  const sampler = new Sampler(vocabulary);
  const prompt = Int32Array.from({ length: 500 }, (_, index) => (index * 31) % vocabulary);
  const sequence = new SequenceSampler({ ...NEUTRAL_SAMPLING, ...changes }, prompt, [], 1);
  const edited = sequence.edits.touches(0);
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    let draws = 0;
    let spent = 0;
    while (spent < ROUND_MS) {
      if (edited) row.set(raw);
      const start = performance.now();
      for (let repeat = 0; repeat < (edited ? 1 : 20); repeat++, draws++) sampler.sample(row, sequence, []);
      spent += performance.now() - start;
    }
    best = Math.min(best, (spent * 1000) / draws);
  }
  return Math.round(best);
}

const results = Object.entries(CASES).map(([name, changes]) => ({
  name,
  us32k: measure(32_000, changes),
  us152k: measure(151_936, changes),
}));
const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
console.log(
  JSON.stringify({ bench: "sampler", unit: "us per sequence per step, best of 7", machine, results }, null, 1),
);
