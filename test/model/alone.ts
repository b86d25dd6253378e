/**
 * The naive model of a request: what one sequence gives when nothing else exists. One slot of a fresh fake kernel, the
 * prompt in one forward, then token by token: no scheduler, no cache, no batch, no preemption. Whatever the engine does
 * to a sequence, this is what has to come out.
 *
 * Greedy choices, prompt logprobs, the grammar and the endings are written anew here; a seeded draw is the sampler's
 * own, which sampler.test.ts proves. Used by engine.test.ts and faults.test.ts.
 */
import { FakeKernel } from "#engine/fake.ts";
import { createBatch, type KernelLimits, NO_ADAPTER } from "#engine/kernel.ts";
import type { Submission } from "#engine/requests.ts";
import { Sampler, SequenceSampler } from "#engine/sampler/sampler.ts";
import { compileStructured } from "#prompt/grammar/compile.ts";

export interface Alone {
  readonly tokens: readonly number[];
  readonly reason: "stop" | "length";
  readonly stopToken: number | undefined;
  /** Per prompt position but the first: logprob and rank of the token that stands there. */
  readonly prompt: readonly { readonly logprob: number; readonly rank: number }[];
  /** Cells that it takes at its longest. */
  readonly cells: number;
}

/** Groups of "01" or "2", six at most, then "3"; digits are tokens 48 … 57 of the fake kernel. */
export const DIGITS = compileStructured({ kind: "regex", pattern: "(01|2){1,6}3" });

/** Which digit tokens may follow; empty where the text is whole. By hand, the compiler plays no part. */
function nextDigits(output: readonly number[]): number[] {
  const text = output.map((token) => String.fromCharCode(token)).join("");
  if (text.endsWith("3")) return [];
  if (text.endsWith("0")) return [49];
  const groups = text.replaceAll("01", "2").length;
  return [...(groups < 6 ? [48, 50] : []), ...(groups > 0 ? [51] : [])];
}

/** @param contextLength tokens that a sequence may hold */
export function alone(submission: Submission, sample: number, limits: KernelLimits, contextLength: number): Alone {
  const { prompt, sampling } = submission;
  const adapter = submission.adapter?.number ?? NO_ADAPTER;
  const kernel = new FakeKernel({ ...limits, maxSequences: 1, maxBatchTokens: 4096, contextPerSlot: 4096 });
  if (adapter !== NO_ADAPTER) kernel.loadAdapter(adapter, "adapter");
  const forward = (tokens: readonly number[], all: boolean): readonly Float32Array[] => {
    const batch = createBatch(tokens.length);
    const from = kernel.length(0);
    batch.count = tokens.length;
    batch.tokens.set(tokens);
    batch.positions.set(tokens.map((_, at) => from + at));
    batch.adapters.fill(adapter);
    if (from === 0) batch.blocks.fill(1, 0, bodyOf(tokens.length, limits.prefillBlock));
    batch.outputs.fill(all ? 1 : 0);
    batch.outputs[tokens.length - 1] = 1;
    return kernel.forward(batch).map((row) => row.slice());
  };
  const rows = forward([...prompt], true);
  const choose = chooser(submission, sample, limits);
  const tokens: number[] = [];
  let row = rows[rows.length - 1] as Float32Array;
  const end = (reason: Alone["reason"], stopToken?: number): Alone => ({
    tokens,
    reason,
    stopToken,
    prompt: [...prompt].slice(1).map((token, at) => naiveLogprob(rows[at] as Float32Array, token)),
    cells: prompt.length + Math.max(0, tokens.length - 1),
  });
  if (sampling.maxTokens === 0) return end("length");
  for (;;) {
    const token = choose(row, tokens);
    tokens.push(token);
    if (tokens.length >= sampling.minTokens) {
      if (!sampling.ignoreEos && limits.endOfTurn.includes(token)) return end("stop", token);
      if (sampling.stopTokenIds.includes(token)) return end("stop", token);
    }
    if (sampling.constraint !== undefined && sampling.ignoreEos && token === 51) return end("stop");
    if (tokens.length >= sampling.maxTokens || prompt.length + tokens.length >= contextLength) return end("length");
    row = forward([token], false)[0] as Float32Array;
  }
}

/** Tokens of a prompt that come in blocks: whole halves of one, no fewer than a block, and not the last token. */
function bodyOf(prompt: number, block: number): number {
  const halves = Math.floor((prompt - 1) / (block / 2));
  return block === 1 || halves < 2 ? 0 : halves * (block / 2);
}

function chooser(
  { sampling, prompt }: Submission,
  sample: number,
  { vocabularySize, endOfTurn }: KernelLimits,
): (row: Float32Array, output: readonly number[]) => number {
  if (sampling.temperature > 0) {
    const sampler = new Sampler(vocabularySize);
    const own = new SequenceSampler(sampling, prompt, endOfTurn, (sampling.seed ?? 0) + sample);
    return (row, output) => sampler.sample(row.slice(), own, output).token;
  }
  const every = Array.from({ length: vocabularySize }, (_, token) => token);
  const barred = [...endOfTurn, ...sampling.stopTokenIds];
  return (row, output) => {
    const digits = sampling.constraint === undefined ? every : nextDigits(output);
    const open = digits.length > 0 ? digits : endOfTurn;
    const allowed = output.length < sampling.minTokens ? open.filter((token) => !barred.includes(token)) : open;
    return allowed.reduce((best, token) => ((row[token] as number) > (row[best] as number) ? token : best));
  };
}

function naiveLogprob(row: Float32Array, token: number): { logprob: number; rank: number } {
  const own = row[token] as number;
  const total = row.reduce((sum, value) => sum + Math.exp(value), 0);
  const before = row.reduce((count, value, at) => count + (value > own || (value === own && at < token) ? 1 : 0), 0);
  return { logprob: own - Math.log(total), rank: before + 1 };
}
