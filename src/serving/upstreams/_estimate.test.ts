import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { judgeRelay } from "#wire/relay/judge.ts";
import { RELAY_RULES } from "#wire/relay/rules.ts";
import { expect, expectAudio } from "./_estimate.ts";

const FACTS = {
  caps: DEFAULT_CAPS,
  salt: () => "s",
  priority: () => 0,
  requestId: "r",
  passed: new Set<string>(),
};

function expected(path: keyof typeof RELAY_RULES, body: object, window = 0) {
  return expect(judgeRelay(RELAY_RULES[path], Buffer.from(JSON.stringify(body)), FACTS), window);
}

test("token ids are as many as they are; a text is a third of its bytes, and at most its bytes", () => {
  assert.deepEqual(expected("/v1/completions", { prompt: [[1, 2], [3]], max_tokens: 4, n: 2 }), {
    promptTokens: 3,
    completionTokens: 16,
    sequences: 4,
  });
  assert.deepEqual(expected("/v1/completions", { prompt: "x".repeat(298), max_tokens: 4 }), {
    promptTokens: 100,
    completionTokens: 4,
    sequences: 1,
    atMost: { promptTokens: 300 + 16, completionTokens: 4 },
  });
});

test("no text has more tokens than is said that it may have, however it is written in JSON", () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: "grapheme" }), { minLength: 1, maxLength: 5 }),
      fc.boolean(),
      (texts, chat) => {
        const messages = texts.map((content) => ({ role: "user", content }));
        const { promptTokens, atMost } = chat
          ? expected("/v1/chat/completions", { messages, max_tokens: 1 })
          : expected("/v1/completions", { prompt: texts, max_tokens: 1 });
        const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
        assert.ok((atMost?.promptTokens ?? 0) >= bytes && (atMost?.promptTokens ?? 0) >= promptTokens);
      },
    ),
  );
});

test("what is put before each of many counts as often as it is put there", () => {
  const body = { query: "q".repeat(298), documents: Array.from({ length: 10 }, () => "d") };
  const { promptTokens, atMost } = expected("/rerank", body);
  assert.ok(promptTokens > 1000 && (atMost?.promptTokens ?? 0) >= 3000, `${promptTokens}`);
  assert.ok(expected("/score", { data_1: ["q".repeat(298)], data_2: body.documents }).promptTokens > 1000);
});

test("what a template prints besides counts: documents, arguments, and its own words", () => {
  const messages = [{ role: "user", content: "x" }];
  const documents = [{ text: "d".repeat(3000) }];
  assert.ok(expected("/v1/chat/completions", { messages, documents, max_tokens: 1 }).promptTokens > 1000);
  const kwargs = { a: "k".repeat(3000) };
  const { atMost } = expected("/v1/chat/completions", { messages, chat_template_kwargs: kwargs, max_tokens: 1 });
  assert.ok((atMost?.promptTokens ?? 0) > 3000 + 1024);
});

test("a medium is no text, and may fill the window; nothing is more than that", () => {
  const url = `data:image/png;base64,${"A".repeat(400_000)}`;
  const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }];
  const { promptTokens, atMost } = expected("/v1/chat/completions", { messages, max_tokens: 1 }, 100_000);
  assert.ok(promptTokens < 1200, `${promptTokens}`);
  assert.equal(atMost?.promptTokens, 100_000);
  const long = expected("/v1/completions", { prompt: "x".repeat(9000), max_tokens: 9000 }, 4096);
  assert.deepEqual(
    [long.promptTokens, long.completionTokens, long.atMost],
    [3001, 4096, { promptTokens: 4096, completionTokens: 4096 }],
  );
  const open = expected("/v1/completions", { prompt: "x".repeat(298) }, 4096);
  assert.deepEqual([open.completionTokens, open.atMost?.completionTokens], [16, 16]);
  const chat = expected("/v1/chat/completions", { messages: [{ role: "user", content: "x" }] }, 4096);
  assert.equal(chat.completionTokens + chat.promptTokens, 4096);
  assert.equal(chat.atMost?.completionTokens, 4096);
});

test("speech may be as long as any", () => {
  const form = { fields: [], file: { name: "file", filename: "a", type: "audio/wav", bytes: Buffer.alloc(0) } };
  const verdict = { model: "m", stream: false, strip: false, n: 1, maxTokens: 7, fileBytes: 40_000 };
  const { promptTokens, completionTokens, atMost } = expectAudio({ ...verdict, form } as never, 448);
  assert.deepEqual([promptTokens, completionTokens], [10 * 50, 7]);
  assert.deepEqual(atMost, { promptTokens: 600 * 50, completionTokens: 20 * 7 });
});
