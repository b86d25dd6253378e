import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { fakeTokenizer } from "#prompt/_fake-tokenizer.ts";
import { fixture } from "./_fixture.ts";
import { thinkingBudget } from "./_thinking.ts";
import type { ServedModel } from "./models.ts";

const bytes = (text: string): number[] => [...Buffer.from(text)];
/** Tags are tokens 256 and 257. */
const marked = fakeTokenizer({ specials: ["!<think>", "!</think>", "<|im_end|>"], eos: "<|im_end|>" });
const model = (changes: Partial<ServedModel> = {}): ServedModel => fixture({}, { tokenizer: marked, ...changes }).model;

function budget(prompt: readonly number[], tokens: number, served = model(), text?: string) {
  return thinkingBudget({ thinkingBudget: tokens }, served, Int32Array.from(prompt), text);
}

test("without a budget there is no limit, whatever the model", async () => {
  const silent = model({ parsers: { reasoning: undefined, tools: "hermes", holdCalls: false } });
  assert.equal(await thinkingBudget({}, silent, Int32Array.of(1)), undefined);
  await assert.rejects(budget([1], 3, silent), (error) => {
    assert.ok(error instanceof Fault);
    assert.deepEqual([error.kind, error.param], ["invalid_request", "thinking_token_budget"]);
    return true;
  });
});

test("what the prompt has thought already counts, from the last tag on", async () => {
  const tags = { start: [256], end: [257] };
  assert.deepEqual(await budget([1, 256, 10, 11], 5), { tokens: 3, open: true, ...tags });
  assert.deepEqual(await budget([1, 256, 10, 11], 1), { tokens: 0, open: true, ...tags });
  assert.deepEqual(await budget([256, 10, 257, 5], 5), { tokens: 5, open: false, ...tags });
  assert.deepEqual(await budget([256, 10, 257, 256], 5), { tokens: 5, open: true, ...tags });
  assert.deepEqual(await budget([7], 5), { tokens: 5, open: false, ...tags });
});

test("tags that are plain text open a thought where the template's text ends with one, not where a user spells one", async () => {
  const plain = model({ tokenizer: fixture().model.tokenizer });
  const tags = { start: bytes("<think>"), end: bytes("</think>") };
  const spelled = "say <think> please";
  assert.deepEqual(await budget(bytes(spelled), 4, plain, spelled), { tokens: 4, open: false, ...tags });
  const opened = "hi\n<think>\n";
  assert.deepEqual(await budget(bytes(opened), 4, plain, opened), { tokens: 4, open: true, ...tags });
  // Of a prompt without a template every token is the caller's.
  assert.deepEqual(await budget(bytes("<think>ab"), 4, plain), { tokens: 2, open: true, ...tags });
});
