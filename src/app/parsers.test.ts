import assert from "node:assert/strict";
import { test } from "node:test";
import { parsersFor } from "./parsers.ts";

const wanted = {
  reasoningParser: "auto",
  toolCallParser: "hermes",
  enableAutoToolChoice: true,
  holdToolCalls: true,
} as const;

test("parsers are chosen by name, or by the chat template", () => {
  assert.deepEqual(parsersFor(wanted, "<think>"), { reasoning: "qwen3", tools: "hermes", holdCalls: true });
  assert.deepEqual(parsersFor({ ...wanted, toolCallParser: "auto" }, "<|channel|>"), {
    reasoning: "openai_gptoss",
    tools: "openai",
    holdCalls: true,
  });
  assert.equal(parsersFor({ ...wanted, toolCallParser: "auto" }, "").tools, "hermes");
  assert.equal(parsersFor(wanted, "").reasoning, undefined);
});

test("other names for a parser mean the same, and none means none", () => {
  const named = parsersFor({ ...wanted, toolCallParser: "gpt_oss", reasoningParser: "gpt_oss" }, "<think>");
  assert.deepEqual(named, { reasoning: "openai_gptoss", tools: "openai", holdCalls: true });
  assert.equal(parsersFor({ ...wanted, toolCallParser: "llama4_json" }, "").tools, "llama3_json");
  const none = parsersFor({ ...wanted, toolCallParser: "none", reasoningParser: "none" }, "<think>");
  assert.deepEqual([none.tools, none.reasoning], [undefined, undefined]);
  assert.equal(parsersFor({ ...wanted, enableAutoToolChoice: false }, "").tools, undefined);
});
