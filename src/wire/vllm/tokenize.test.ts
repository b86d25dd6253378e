import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { DetokenizeBody, decodeDetokenize, decodeTokenize, encodeTokenize, TokenizeBody } from "./tokenize.ts";

function decode(body: Record<string, unknown>) {
  return decodeTokenize(TokenizeBody.parse(body), DEFAULT_CAPS);
}

function refuses(run: () => unknown, param: string): void {
  assert.throws(run, (error) => error instanceof Fault && error.param === param);
}

test("prompt form adds special tokens unless told otherwise", () => {
  assert.deepEqual(decode({ prompt: "a" }).source, { kind: "prompt", prompt: "a", addSpecialTokens: true });
  assert.deepEqual(decode({ prompt: "", add_special_tokens: false }).source, {
    kind: "prompt",
    prompt: "",
    addSpecialTokens: false,
  });
});

test("chat form takes the template's options and tools", () => {
  const { source, withSpellings } = decode({
    messages: [{ role: "user", content: "a" }],
    return_token_strs: true,
    tools: [{ type: "function", function: { name: "f" } }],
  });
  assert.equal(source.kind, "chat");
  assert.ok(source.kind === "chat" && source.template.addGenerationPrompt && !source.template.addSpecialTokens);
  assert.ok(withSpellings);
});

test("refusals name the field", () => {
  refuses(() => decode({}), "prompt");
  refuses(() => decode({ prompt: "a", messages: [] }), "prompt");
  refuses(() => decode({ messages: [] }), "messages");
  refuses(() => decode({ messages: [{ role: "user", content: "a" }], chat_template: "{{ x }}" }), "chat_template");
  refuses(
    () => decode({ messages: [{ role: "user", content: "a" }], mm_processor_kwargs: { code_revision: "x" } }),
    "mm_processor_kwargs",
  );
  for (const [tokens, param] of [
    [[1, -1], "tokens.1"],
    [[0.5], "tokens.0"],
    [["1"], "tokens.0"],
    ["1", "tokens"],
    [undefined, "tokens"],
  ] as const) {
    refuses(() => decodeDetokenize(DetokenizeBody.parse({ tokens })), param);
  }
});

test("the reply counts, and spells only on request", () => {
  assert.deepEqual(encodeTokenize({ tokens: [1, 2], contextLength: 9 }), {
    count: 2,
    max_model_len: 9,
    tokens: [1, 2],
    token_strs: null,
  });
  assert.deepEqual(encodeTokenize({ tokens: [1], contextLength: 9, spellings: ["Ġa"] }).token_strs, ["Ġa"]);
});
