/**
 * The engine's logprobs, through libllama, against a Llama that was computed in double precision (reference.py).
 *
 * Errors are in nats, absolute, measured with libllama v0.5.0 on x86-64 (AVX-512); the limits are twice that.
 * - F32 weights: 1.2e-2 at most, 2.8e-3 rms. Rounding K, V and Q to half precision in the reference gives 8e-3 and 2.4e-3.
 * - the demo model (Q8_0): 0.25 at most (an unlikely token), 3.4e-2 rms. ggml quantises the activations of each product
 *   to Q8_0; doing so in the reference gives 0.21 and 3.3e-2. So nothing is left that the formats do not explain.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseJson } from "#base/json.ts";
import type { PositionLogprobs } from "#core/generate.ts";
import { NEUTRAL_SAMPLING } from "#core/sampling.ts";
import { Engine } from "#engine/engine.ts";
import { openNativeKernel } from "#engine/native/kernel.ts";
import { createBlockHasher, NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";
import { EXPECTED, type Expected, MODELS } from "./models.ts";

interface Limit {
  /** No position is farther off. */
  readonly most: number;
  /** Root of the mean square over all positions. */
  readonly typical: number;
}

const LIMITS: Readonly<Record<string, Limit>> = {
  floats: { most: 2.5e-2, typical: 6e-3 },
  demo: { most: 0.5, typical: 7e-2 },
};
const fixtures = parseJson(readFileSync(EXPECTED, "utf8")) as unknown as Expected[];
const hasher = await createBlockHasher("sha256");

interface Answer {
  readonly prompt: readonly (PositionLogprobs | null)[];
  readonly output: readonly PositionLogprobs[];
}

function ask(engine: Engine, request: number, prompt: readonly number[], maxTokens: number): Answer {
  const sampling = {
    ...NEUTRAL_SAMPLING,
    temperature: 0,
    ignoreEos: true,
    maxTokens,
    logprobs: 1,
    promptLogprobs: 0,
  };
  engine.submit({ request, prompt: Int32Array.from(prompt), sampling, samples: 1, priority: 0 });
  const answer: { prompt: readonly (PositionLogprobs | null)[]; output: PositionLogprobs[] } = {
    prompt: [],
    output: [],
  };
  for (let report = engine.step(); report !== undefined; report = engine.step()) {
    for (const { logprobs } of report.prompts) answer.prompt = logprobs ?? [];
    for (const { logprobs } of report.tokens) if (logprobs !== undefined) answer.output.push(logprobs);
  }
  return answer;
}

for (const { model, digest, cases } of fixtures) {
  test(`logprobs of the model "${model}" against double precision`, async () => {
    const modelPath = (MODELS[model] ?? assert.fail(model))();
    assert.equal(
      createHash("sha256").update(readFileSync(modelPath)).digest("hex"),
      digest,
      "run make-fixture.ts again",
    );
    const shape = { contextPerSlot: 256, maxSequences: 2, maxBatchTokens: 128 };
    const kernel = await openNativeKernel({ modelPath, ...shape, threads: 1, gpuLayers: 0 });
    const limits = {
      maxNumSeqs: 2,
      maxNumBatchedTokens: 128,
      contextLength: 256,
      schedulingPolicy: "fcfs" as const,
      prefixCache: NO_PREFIX_CACHE,
    };
    const engine = new Engine(kernel, limits, hasher);
    const { most, typical } = LIMITS[model] ?? assert.fail(model);
    const errors: number[] = [];
    cases.forEach(({ prompt, logprobs, greedy }, at) => {
      const answer = ask(engine, at, prompt, greedy.length);
      logprobs.forEach((expected, position) => {
        const chosen = answer.prompt[position + 1]?.chosen;
        assert.equal(chosen?.token, prompt[position + 1]);
        errors.push((chosen?.logprob ?? Number.NaN) - expected);
      });
      for (const [position, { token, logprob, lead }] of greedy.entries()) {
        const chosen = answer.output[position]?.chosen;
        // Two tokens may be as good as equal: from where the choices part, nothing can be compared.
        if (chosen?.token !== token && lead < 2 * most) break;
        assert.equal(chosen?.token, token, `greedy token ${position} after ${prompt.length}`);
        errors.push((chosen?.logprob ?? Number.NaN) - logprob);
      }
    });
    engine.close();
    const [largest, mean] = [
      Math.max(...errors.map(Math.abs)),
      Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length),
    ];
    console.log(
      `# ${model}: ${errors.length} logprobs, off by ${largest.toExponential(1)} at most, ${mean.toExponential(1)} rms`,
    );
    assert.ok(errors.length >= cases.flatMap(({ logprobs }) => logprobs).length + cases.length, "most were compared");
    assert.ok(largest <= most, `off by ${largest}`);
    assert.ok(mean <= typical, `off by ${mean} in the mean`);
  });
}
