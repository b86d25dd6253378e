import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ModelFacts } from "#engine/gguf/facts.ts";
import { DEFAULT_SEQUENCES, fit, fitPooling, fitThreads } from "./sizing.ts";
import { StartupError } from "./startup-error.ts";

const facts = (trainedContext: number, kvBytesPerToken: number): ModelFacts => ({
  architecture: "llama",
  title: undefined,
  trainedContext,
  chatTemplate: undefined,
  rerankTemplate: undefined,
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

test("threads are shared between engines, each has one, and very small models need no more", () => {
  const large = { ...facts(2048, 1000), parameters: 1e9 };
  assert.deepEqual(
    [1, 2, 3, 8, 16].map((engines) => fitThreads(large, 0, 8, engines)),
    [8, 4, 2, 1, 1],
  );
  assert.deepEqual([fitThreads(large, 6, 8, 2), fitThreads(facts(2048, 1000), 6, 8, 2)], [3, 3]);
  assert.equal(fitThreads(facts(2048, 1000), 0, 8, 1), 1);
});

const pooled = (
  model: ModelFacts,
  changes: Partial<Parameters<typeof fitPooling>[1]> = {},
  causal = true,
): ReturnType<typeof fitPooling> =>
  fitPooling(
    { ...model, pooling: { ...model.pooling, causal, encoder: !causal } },
    { contextLength: undefined, maxNumSeqs: undefined, budget: 1e9, maxNumBatchedTokens: 2048, ...changes },
  );

test("a causal model is pooled as far as its K and V fit; a batch holds the longest sequence", () => {
  assert.deepEqual(pooled(facts(32_768, 1000)), {
    contextLength: 32_768,
    maxNumSeqs: 256,
    maxNumBatchedTokens: 32_768,
  });
  assert.equal(pooled(facts(32_768, 100_000)).contextLength, 10_000);
  assert.deepEqual(pooled(facts(512, 1000), { maxNumSeqs: 4 }), {
    contextLength: 512,
    maxNumSeqs: 4,
    maxNumBatchedTokens: 2048,
  });
});

test("a model that sees whole sequences is bounded by the logits that nobody wants", () => {
  // 4 bytes for each of 100 tokens of the vocabulary and 64 numbers: 656 a token.
  assert.equal(pooled(facts(1_000_000, 1000), {}, false).contextLength, 8192);
  assert.equal(pooled(facts(1_000_000, 1000), { contextLength: 10_000 }, false).contextLength, 10_000);
  assert.deepEqual(pooled(facts(8192, 1000), { budget: 656_000 }, false), {
    contextLength: 1000,
    maxNumSeqs: 256,
    maxNumBatchedTokens: 1000,
  });
});

test("a sequence that cannot be pooled says what to change", () => {
  const refused = (work: () => unknown, message: RegExp) =>
    assert.throws(work, (error) => error instanceof StartupError && message.test(error.message));
  refused(() => pooled(facts(512, 1000), { contextLength: 513 }), /trained for/);
  refused(() => pooled(facts(8192, 1000), { contextLength: 2000, budget: 656_000 }, false), /2 MiB.*--max-model-len/);
});
