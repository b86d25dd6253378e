import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeCompletion } from "./completion-decode.ts";
import { CompletionBody } from "./completion-schema.ts";

function decode(body: Record<string, unknown>) {
  return decodeCompletion(CompletionBody.parse({ prompt: "a", ...body }), DEFAULT_CAPS);
}

test("the four prompt forms", () => {
  assert.deepEqual(decode({ prompt: "a" }).call.prompts, ["a"]);
  assert.deepEqual(decode({ prompt: ["a", "b"] }).call.prompts, ["a", "b"]);
  assert.deepEqual(decode({ prompt: [1, 2] }).call.prompts, [[1, 2]]);
  assert.deepEqual(decode({ prompt: [[1], [2, 3]] }).call.prompts, [[1], [2, 3]]);
});

test("defaults: 16 tokens, special tokens added, no echo", () => {
  const { call, print } = decode({});
  assert.deepEqual([call.sampling.maxTokens, call.addSpecialTokens, call.echo, print.echo], [16, true, false, false]);
  assert.equal(decode({ max_tokens: null }).call.sampling.maxTokens, 16);
});

test("echo with logprobs asks for the prompt's", () => {
  const { call } = decode({ echo: true, logprobs: 2, max_tokens: 0 });
  assert.deepEqual([call.output.logprobs, call.output.promptLogprobs, call.sampling.maxTokens], [2, 2, 0]);
});

const REFUSED: readonly (readonly [body: Record<string, unknown>, param: string, kind?: FaultKind])[] = [
  [{ prompt: undefined }, "prompt"],
  [{ prompt: "" }, "prompt"],
  [{ prompt: [] }, "prompt"],
  [{ prompt: {} }, "prompt"],
  [{ prompt: ["a", 1] }, "prompt.1"],
  [{ prompt: [1, "a"] }, "prompt.1"],
  [{ prompt: [1, -1] }, "prompt.1"],
  [{ prompt: [1.5] }, "prompt.0"],
  [{ prompt: [1e300] }, "prompt.0"],
  [{ prompt: [[1], 2] }, "prompt.1"],
  [{ prompt: [[1, -2]] }, "prompt.0.1"],
  [{ prompt: [null] }, "prompt.0"],
  [{ prompt: Array.from({ length: 65 }, () => "a") }, "prompt"],
  [{ prompt: Array.from({ length: 64 }, () => "a"), n: 3 }, "n"],
  [{ prompt_embeds: "AAAA" }, "prompt_embeds"],
  [{ prompt: null, prompt_embeds: "AAAA" }, "prompt_embeds"],
  [{ max_tokens: 0 }, "max_tokens"],
  [{ max_tokens: -1, echo: true }, "max_tokens"],
  [{ logprobs: 21 }, "logprobs"],
  [{ logprobs: true }, "logprobs"],
  [{ n: null }, "n"],
  [{ logprob_token_ids: [1] }, "logprob_token_ids"],
  [{ logprob_token_ids: [1], logprobs: 0, echo: true, max_tokens: 0 }, "logprob_token_ids"],
  [{ suffix: "end" }, "suffix"],
  [{ stream_options: { include_usage: false } }, "stream_options"],
  [{ use_beam_search: true, echo: true, max_tokens: 0 }, "max_tokens"],
  [{ watermarking: true }, "watermarking", "not_implemented"],
];

for (const [body, param, kind] of REFUSED) {
  test(`refuses ${JSON.stringify(body).slice(0, 80)} by ${param}`, () => {
    const parsed = CompletionBody.safeParse({ prompt: "a", ...body });
    if (!parsed.success) return assert.equal(parsed.error.issues[0]?.path.join("."), param);
    assert.throws(
      () => decodeCompletion(parsed.data, DEFAULT_CAPS),
      (error) => error instanceof Fault && error.param === param && error.kind === (kind ?? "invalid_request"),
    );
  });
}
