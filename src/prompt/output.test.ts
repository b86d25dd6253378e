import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { ChoiceEvent } from "#core/calls.ts";
import type { PositionLogprobs } from "#core/generate.ts";
import { fakeTokenizer } from "./_fake-tokenizer.ts";
import { Output, type OutputOptions } from "./output.ts";
import { REASONING_FORMS } from "./reasoning.ts";
import { hermesParser } from "./tools/hermes.ts";
import { openaiParser } from "./tools/openai.ts";

const tokenizer = fakeTokenizer({ specials: ["<|im_end|>", "!<think>"], eos: "<|im_end|>" });
const EOS = 256;

const output = (options: Partial<OutputOptions> = {}): Output =>
  new Output({
    choice: 0, tokenizer, stop: [], includeStopString: false, skipSpecialTokens: true, minTokens: 0, stopTokenIds: [],
    logprobs: false, tokenIds: false, marks: [], reasoning: undefined, tools: undefined, ...options,
  }); // biome-ignore format: one glance

const bytes = (text: string): number[] => [...Buffer.from(text)];
const textOf = (events: readonly ChoiceEvent[], type = "text"): string =>
  events.map((event) => (event.type === type && "text" in event ? event.text : "")).join("");
const drawn = (token: number): PositionLogprobs => ({ chosen: { token, logprob: -1, rank: 1 }, top: [] });

test("any bytes, cut in any way, give the text that one decoder gives, with no half character on the way", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 24 }),
        fc.string({ unit: "grapheme", maxLength: 12 }).map((s) => new Uint8Array(Buffer.from(s))),
      ),
      (raw) => {
        const choice = output();
        const events = [...raw].flatMap((byte) => choice.push([byte], undefined));
        events.push(...choice.end("length", undefined));
        assert.equal(textOf(events), new TextDecoder("utf-8", { ignoreBOM: true }).decode(raw));
        for (const event of events) assert.ok(!("text" in event) || event.text.isWellFormed());
      },
    ),
  );
});

test("the end-of-turn token has no text, a stop token of the request is reported, and either is shown on demand", () => {
  const run = (options: Partial<OutputOptions>, stop: number): ChoiceEvent[] => {
    const choice = output(options);
    return [...choice.push([...bytes("hi"), stop], undefined), ...choice.end("stop", stop)];
  };
  assert.equal(textOf(run({ skipSpecialTokens: false }, EOS)), "hi");
  assert.deepEqual(run({}, EOS).at(-1), { type: "finish", choice: 0, reason: "stop" });
  assert.deepEqual(run({ stopTokenIds: [33] }, 33).at(-1), { type: "finish", choice: 0, reason: "stop", stop: 33 });
  assert.equal(textOf(run({ stopTokenIds: [33] }, 33)), "hi");
  assert.equal(textOf(run({ stopTokenIds: [33], includeStopString: true }, 33)), "hi!");
});

test("an end-of-turn token that does not end the turn is text like any other (ignore_eos)", () => {
  const choice = output({ skipSpecialTokens: false });
  const events = [...choice.push([...bytes("a"), EOS, ...bytes("b")], undefined), ...choice.end("length", undefined)];
  assert.equal(textOf(events), "a<|im_end|>b");
});

test("an end by repetition says so as vLLM does", () => {
  const choice = output();
  const events = [...choice.push(bytes("abab"), undefined), ...choice.end("repetition", undefined)];
  assert.deepEqual(events.at(-1), { type: "finish", choice: 0, reason: "repetition", stop: "repetition_detected" });
});

test("a stop string ends the choice across token borders, and counts its tokens", () => {
  const choice = output({ stop: ["END"] });
  const events = [...choice.push(bytes("abE"), undefined), ...choice.push(bytes("NDxx"), undefined)];
  assert.equal(textOf(events), "ab");
  assert.deepEqual(events.at(-1), { type: "finish", choice: 0, reason: "stop", stop: "END" });
  assert.equal(choice.ended, true);
  assert.equal(choice.tokens, 5);
  assert.deepEqual(choice.end("abort", undefined), []);
});

test("stop strings do not count before min_tokens", () => {
  const choice = output({ stop: ["b"], minTokens: 3 });
  const events = choice.push(bytes("abcdb"), undefined);
  assert.equal(textOf(events), "abcd");
});

test("every token's id and logprob leaves exactly once, in order, also when its text is held back", () => {
  const choice = output({ logprobs: true, tokenIds: true, stop: ["zz"] });
  const tokens = [...bytes("azé"), EOS];
  const events = [...tokens.flatMap((token) => choice.push([token], [drawn(token)])), ...choice.end("stop", EOS)];
  const ids = events.flatMap((event) => ("tokenIds" in event ? (event.tokenIds ?? []) : []));
  const logprobs = events.flatMap((event) => ("logprobs" in event ? (event.logprobs ?? []) : []));
  assert.deepEqual(ids, tokens);
  assert.deepEqual(
    logprobs.map(({ token }) => token),
    tokens,
  );
  assert.equal(textOf(events), "azé");
});

test("a mark that is a control token is shown to the parsers, and no other control token is", () => {
  const marked = fakeTokenizer({ specials: ["<|im_end|>", "<tool_call>", "<|other|>", "<think>"], eos: "<|im_end|>" });
  const choice = output({
    tokenizer: marked, marks: ["<tool_call>", "<think>", "</think>"], tools: hermesParser(),
    reasoning: REASONING_FORMS.qwen3.make({ prompt: "", readsCalls: false }),
  }); // biome-ignore format: one glance
  const call = bytes('{"name": "f", "arguments": {"a": "<tool_call>"}}');
  const tokens = [259, ...bytes("hm</think>"), 258, ...bytes("So."), 257, ...call, 258];
  const events = [...tokens.flatMap((token) => choice.push([token], undefined)), ...choice.end("stop", EOS)];
  assert.deepEqual([textOf(events, "reasoning"), textOf(events)], ["hm", "So."]);
  const parts = events.filter((event) => event.type === "tool-call");
  assert.equal(parts.map((part) => part.arguments).join(""), '{"a": "<tool_call>"}');
  const plain = output({ tokenizer: marked });
  assert.equal(textOf([...plain.push([257, ...bytes("x")], undefined), ...plain.end("stop", EOS)]), "x");
});

test("a token that ends the turn may be a mark, and its text is the parser's", () => {
  const harmony = fakeTokenizer({ specials: ["<|call|>", "<|message|>", "<|channel|>"], eos: "<|call|>" });
  const marks = ["<|call|>", "<|message|>", "<|channel|>"];
  const choice = output({ tokenizer: harmony, marks, tools: openaiParser(), includeStopString: true });
  const tokens = [258, ...bytes("commentary to=functions.f"), 257, ...bytes('{"a": 1}'), 256];
  const events = [...choice.push(tokens, undefined), ...choice.end("stop", 256)];
  const calls = events.filter((event) => event.type === "tool-call");
  assert.deepEqual([calls[0]?.name, calls.map((part) => part.arguments).join("")], ["f", '{"a": 1}']);
  assert.equal(textOf(events), "");
});

test("thought, answer and calls are told apart in one stream", () => {
  const choice = output({
    reasoning: REASONING_FORMS.qwen3.make({ prompt: "", readsCalls: true }),
    tools: hermesParser(),
  });
  const answer = '<think>hm</think>\n\nSo.<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>';
  const events = [...bytes(answer).flatMap((byte) => choice.push([byte], undefined)), ...choice.end("stop", EOS)];
  assert.equal(textOf(events, "reasoning"), "hm");
  assert.equal(textOf(events), "So.");
  const calls = events.filter((event) => event.type === "tool-call");
  assert.equal(calls[0]?.name, "f");
  assert.equal(calls.map((part) => part.arguments).join(""), '{"a": 1}');
  assert.ok(choice.reasoningTokens > 0 && choice.reasoningTokens < choice.tokens);
});
