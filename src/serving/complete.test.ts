import assert from "node:assert/strict";
import { test } from "node:test";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { encodeCompletion } from "#wire/openai/completion-encode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { CompletionReply } from "#wire/openai/replies.ts";
import { collect, type Fixture, fixture, grant, says, summary } from "./_fixture.ts";
import { complete } from "./complete.ts";
import { detokenize, tokenize } from "./tokenize.ts";

const signal = new AbortController().signal;

function decode(body: Record<string, unknown>) {
  return decodeCompletion(CompletionBody.parse(body), DEFAULT_CAPS);
}

function run({ serving }: Fixture, body: Record<string, unknown>): Promise<CallEvent[]> {
  return collect(complete(grant("inference"), serving, decode(body).call, signal));
}

function refusal(param: string) {
  return (error: unknown) => error instanceof Fault && error.kind === "invalid_request" && error.param === param;
}

const sent = ({ backend }: Fixture): number[][] => backend.requests.map((request) => [...request.prompt]);

test("text gets the model's bos unless told otherwise; token ids stay as they are", async () => {
  const setting = fixture({ reply: says("x") });
  await run(setting, { prompt: "ab" });
  await run(setting, { prompt: "ab", add_special_tokens: false });
  await run(setting, { prompt: [97, 257] });
  assert.deepEqual(sent(setting), [
    [256, 97, 98],
    [97, 98],
    [97, 257],
  ]);
});

test("special literals in a prompt are text", async () => {
  const setting = fixture({ reply: says("x") });
  await run(setting, { prompt: "<|im_end|>", add_special_tokens: false });
  assert.deepEqual(sent(setting), [[...Buffer.from("<|im_end|>")]]);
});

test("several prompts answer under p*n+s", async () => {
  const setting = fixture({ reply: ({ prompt }) => [...prompt] });
  const events = await run(setting, { prompt: ["a", "b"], n: 2, add_special_tokens: false });
  assert.deepEqual(
    [0, 1, 2, 3].map((choice) => summary(events, choice).text),
    ["a", "a", "b", "b"],
  );
});

test("echo prints the prompt in front, also one of token ids, with logprobs of both", async () => {
  for (const prompt of ["ab", [97, 98]]) {
    const setting = fixture({ reply: says("xy") });
    const { call, print } = decode({ prompt, echo: true, logprobs: 1, max_tokens: 2, add_special_tokens: false });
    const events = complete(grant("inference"), setting.serving, call, signal);
    const identity = {
      id: "cmpl-1",
      created: 7,
      usage: { cachedTokens: false, reasoningTokens: false, always: false },
    };
    const [choice] = CompletionReply.parse(await encodeCompletion(events, print, identity, 1)).choices;
    assert.equal(choice?.text, "abxy");
    assert.deepEqual(choice?.logprobs?.tokens, ["a", "b", "x", "y"]);
    assert.deepEqual(choice?.logprobs?.text_offset, [0, 1, 2, 3]);
    assert.equal(choice?.logprobs?.token_logprobs[0], null);
  }
});

test("no tokens at all: the echo alone, and finish is length", async () => {
  const setting = fixture({ reply: says("xy") });
  const events = await run(setting, { prompt: "ab", echo: true, max_tokens: 0 });
  assert.deepEqual([summary(events).text, summary(events).finish], ["", "length"]);
  assert.equal(setting.backend.requests[0]?.sampling.maxTokens, 0);
});

test("refusals name the prompt at fault", async () => {
  const setting = fixture({ reply: says("x") });
  await assert.rejects(run(setting, { prompt: [1, 259] }), refusal("prompt.1"));
  await assert.rejects(run(setting, { prompt: [[1], [2, 1e9]] }), refusal("prompt.1.1"));
  await assert.rejects(run(setting, { prompt: ["a", ""], add_special_tokens: false }), refusal("prompt.1"));
  await assert.rejects(run(setting, { prompt: [[]] }), refusal("prompt"));
  await assert.rejects(run(setting, { prompt: "x".repeat(513) }), refusal("prompt"));
  await assert.rejects(run(setting, { prompt: "x".repeat(500), max_tokens: 16 }), refusal("max_tokens"));
  await assert.rejects(run(setting, { prompt: "x".repeat(10_000_000) }), refusal("prompt"));
  assert.equal(setting.backend.requests.length, 0);
});

test("tokenize and detokenize are each other's inverse on text, and know the vocabulary's end", async () => {
  const { serving } = fixture();
  const source = { kind: "prompt", prompt: "Grüße 😀", addSpecialTokens: false } as const;
  const { tokens, contextLength, spellings } = await tokenize(grant("tokenize"), serving, {
    model: undefined,
    source,
    withSpellings: true,
  });
  assert.deepEqual([contextLength, spellings?.length], [512, tokens.length]);
  assert.equal(detokenize(grant("tokenize"), serving, { model: "demo", tokens }), "Grüße 😀");
  assert.equal(detokenize(grant("tokenize"), serving, { model: "demo", tokens: [257, 0xff, 97] }), "<|im_start|>�a");
  assert.throws(
    () => detokenize(grant("tokenize"), serving, { model: undefined, tokens: [0, 259] }),
    refusal("tokens.1"),
  );
});

test("tokenize of a conversation is what a chat would send", async () => {
  const { serving } = fixture();
  const template = { addGenerationPrompt: true, continueFinalMessage: false, addSpecialTokens: false, kwargs: {} };
  const source = { kind: "chat", messages: [{ role: "user", content: "hi" }], tools: [], template } as const;
  const { tokens } = await tokenize(grant("tokenize"), serving, { model: undefined, source, withSpellings: false });
  assert.equal(
    detokenize(grant("tokenize"), serving, { model: undefined, tokens }),
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
  );
});
