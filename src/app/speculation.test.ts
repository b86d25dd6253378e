import assert from "node:assert/strict";
import { test } from "node:test";
import { speculationPlan } from "./speculation.ts";
import { StartupError } from "./startup-error.ts";

test("vLLM's forms", () => {
  const lookup = { method: "ngram", tokens: 5, lookupMin: 2, lookupMax: 4 };
  assert.deepEqual(
    speculationPlan(
      '{"method":"ngram","num_speculative_tokens":5,"prompt_lookup_max":4,"prompt_lookup_min":2,"disable_by_batch_size":8}',
    ),
    { options: { ...lookup, disableAbove: 8 }, draft: undefined },
  );
  assert.deepEqual(speculationPlan('{"model":"[ngram]","num_speculative_tokens":5,"prompt_lookup_max":4}')?.options, {
    ...lookup,
    lookupMin: 4,
  });
  assert.deepEqual(speculationPlan('{"num_speculative_tokens":3}')?.options.lookupMax, 5);
  const { options, draft } = speculationPlan('{"model":"/m/small.gguf","num_speculative_tokens":3}') ?? {};
  assert.deepEqual([options?.method, draft], ["draft_model", "/m/small.gguf"]);
});

test("what makes no sense is refused by name", () => {
  for (const [text, reason] of [
    ["{", /not JSON/],
    ["{}", /num_speculative_tokens|expected number/],
    ['{"num_speculative_tokens":0}', />=1/],
    ['{"num_speculative_tokens":33}', /<=32/],
    ['{"num_speculative_tokens":3,"method":"eagle"}', /ngram/],
    ['{"num_speculative_tokens":3,"draft_tensor_parallel_size":1}', /draft_tensor_parallel_size/],
    ['{"num_speculative_tokens":3,"method":"draft_model"}', /needs a "model"/],
    ['{"num_speculative_tokens":3,"method":"ngram","model":"x.gguf"}', /takes no "model"/],
    ['{"num_speculative_tokens":3,"prompt_lookup_min":5,"prompt_lookup_max":4}', /over prompt_lookup_max/],
  ] as const) {
    assert.throws(
      () => speculationPlan(text),
      (error) => error instanceof StartupError && reason.test(error.message),
      text,
    );
  }
});
