import assert from "node:assert/strict";
import { test } from "node:test";
import { tryParseJson } from "#base/json.ts";
import { plainUsage } from "./_plain-usage.ts";
import { readUsage, usageOf } from "./usage.ts";

function plain(text: string) {
  const bytes = Buffer.from(`  ${text},`);
  return plainUsage(bytes, 2, bytes.length - 1);
}

const SAID = [
  '{"prompt_tokens":200,"total_tokens":264,"completion_tokens":64}',
  '{"prompt_tokens": 8, "total_tokens": 8, "completion_tokens": 0, "prompt_tokens_details":null}',
  '{"input_tokens":12,"output_tokens":3}',
  '{"total_tokens":7,"prompt_tokens":999999999999999}',
  '{"total_tokens":7}',
];

test("counts on one level are read where they lie", () => {
  for (const text of SAID) {
    assert.ok(plain(text) !== undefined, text);
    assert.deepEqual(plain(text), readUsage(tryParseJson(text)));
    assert.deepEqual(usageOf(Buffer.from(`{"a":1,"usage":${text}}`)), plain(text));
  }
  assert.deepEqual(plain(SAID[0] ?? ""), {
    promptTokens: 200,
    completionTokens: 64,
    cachedTokens: 0,
    reasoningTokens: 0,
  });
});

test("what is more is read as JSON", () => {
  const more = [
    '{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}',
    '{"input_tokens":9,"cache_read_input_tokens":3}',
    '{"type":"duration","seconds":3}',
    '{"prompt_tokens":1,"prompt_tokens_details":{}}',
    '{"prompt_tokens":1e3}',
    '{"prompt_tokens" :1}',
    '{"prompt\\u005ftokens":1}',
  ];
  for (const text of more) {
    assert.equal(plain(text), undefined, text);
    assert.deepEqual(usageOf(Buffer.from(`{"usage":${text}}`)), readUsage(tryParseJson(text)), text);
    assert.ok(usageOf(Buffer.from(`{"usage":${text}}`)) !== undefined, text);
  }
});

test("what stands twice is no usage", () => {
  for (const twice of [
    '"prompt_tokens":1,"prompt_tokens":1',
    '"total_tokens":1,"prompt_tokens_details":null,"prompt_tokens_details":null',
  ])
    assert.equal(usageOf(Buffer.from(`{"usage":{${twice}}}`)), undefined);
});

test("bytes changed, left out or put in: the same counts as by JSON, or none", () => {
  let read = 0;
  let cases = 0;
  for (const text of SAID)
    for (let at = 0; at < text.length; at++)
      for (const put of ["", "0", "9", "-", ".", "e", " ", ",", '"', "}", "{", "a", '"total_tokens":5,']) {
        const changed = [text.slice(0, at) + put + text.slice(at), text.slice(0, at) + put + text.slice(at + 1)];
        for (const each of changed) {
          cases++;
          const counts = plain(each);
          if (counts === undefined) continue;
          read++;
          assert.deepEqual(counts, readUsage(tryParseJson(each)), each);
        }
      }
  assert.ok(read > cases / 20 && read < cases, `${read} of ${cases} were read so`);
});
