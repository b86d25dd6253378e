import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ModelFacts } from "#engine/gguf/facts.ts";
import { DEFAULT_SEQUENCES, fit } from "./sizing.ts";
import { StartupError } from "./startup-error.ts";

const facts = (trainedContext: number, kvBytesPerToken: number): ModelFacts => ({
  architecture: "llama",
  title: undefined,
  trainedContext,
  chatTemplate: undefined,
  parameters: 1,
  vocabularySize: 100,
  kvBytesPerToken,
  pooling: {
    declared: undefined,
    encoder: false,
    causal: true,
    embeddingSize: 64,
    classes: 0,
    labels: [],
    softmaxHead: false,
  },
});

test("a small model gets its whole window and the usual number of sequences", () => {
  assert.deepEqual(fit(facts(2048, 1000), { contextLength: undefined, maxNumSeqs: undefined, budget: 1e9 }), {
    contextLength: 2048,
    maxNumSeqs: DEFAULT_SEQUENCES,
  });
});

test("a long window is shortened until some sequences fit, unless it was asked for", () => {
  const model = facts(131_072, 100_000);
  const fitted = fit(model, { contextLength: undefined, maxNumSeqs: undefined, budget: 4e9 });
  assert.equal(fitted.contextLength, 4864);
  assert.equal(fitted.maxNumSeqs, 8);
  assert.deepEqual(fit(model, { contextLength: 32_768, maxNumSeqs: undefined, budget: 4e9 }), {
    contextLength: 32_768,
    maxNumSeqs: 1,
  });
});

test("what cannot be held is refused with the flags to change", () => {
  assert.throws(
    () => fit(facts(2048, 1000), { contextLength: 4096, maxNumSeqs: undefined, budget: 1e9 }),
    (e) => e instanceof StartupError && /--max-model-len 4096/.test(e.message),
  );
  assert.throws(
    () => fit(facts(2048, 1_000_000), { contextLength: 2048, maxNumSeqs: 4, budget: 1e9 }),
    (e) => e instanceof StartupError && /--max-num-seqs/.test(e.message),
  );
});

test("whatever is fitted is within the budget, once a sequence is", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 256, max: 200_000 }),
      fc.integer({ min: 100, max: 1_000_000 }),
      fc.integer({ min: 1e6, max: 2 ** 36 }),
      (context, perToken, budget) => {
        let sizing: ReturnType<typeof fit>;
        try {
          sizing = fit(facts(context, perToken), { contextLength: undefined, maxNumSeqs: undefined, budget });
        } catch (error) {
          assert.ok(error instanceof StartupError);
          return;
        }
        const cells = Math.ceil(sizing.contextLength / 256) * 256;
        assert.ok(cells * sizing.maxNumSeqs * perToken <= budget);
        assert.ok(sizing.contextLength <= context && sizing.maxNumSeqs >= 1);
      },
    ),
  );
});
