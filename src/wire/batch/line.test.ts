import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeLine, printVllmRow, succeeded } from "./line.ts";

const decode = (text: string) => decodeLine(Buffer.from(text));

test("a line is a request with a name", () => {
  assert.deepEqual(decode('{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"},"more":1}'), {
    customId: "a",
    url: "/v1/completions",
    body: { prompt: "x" },
  });
});

for (const [text, customId, problem] of [
  ["no json", null, /not JSON/],
  ["[]", null, /not a request/],
  ['{"custom_id":"a"', null, /not JSON/],
  ['{"custom_id":"a","custom_id":"b"}', null, /not JSON/],
  ['{"custom_id":"a","method":"GET","url":"/v1/models","body":{}}', "a", /method/],
  ['{"custom_id":7,"method":"POST","url":"/v1/completions","body":{}}', null, /custom_id/],
  ['{"custom_id":"a","method":"POST","url":"/v1/completions","body":[]}', "a", /body/],
  [`{"custom_id":"${"x".repeat(513)}","method":"POST","url":"/v1/completions","body":{}}`, null, /custom_id/],
] as const)
  test(`what is no request is told, with its name where it has one: ${text.slice(0, 60)}`, () => {
    const line = decode(text);
    assert.ok("problem" in line);
    assert.equal(line.customId, customId);
    assert.match(line.problem, problem);
  });

test("rows are vLLM's", () => {
  const ids = { customId: "a\n", id: "1", requestId: "2" };
  const good = { ...ids, status: 200, answer: '{"object":"x"}' };
  const bad = { ...ids, status: 404, answer: '{"error":{"code":404}}' };
  const none = { ...ids, customId: null, status: 400, problem: 'a "b"' };
  assert.deepEqual([good, bad, none].map(succeeded), [true, false, false]);
  assert.deepEqual([good, bad, none].map(printVllmRow), [
    '{"id":"vllm-1","custom_id":"a\\n","response":{"status_code":200,"request_id":"vllm-batch-2","body":{"object":"x"}},"error":null}',
    '{"id":"vllm-1","custom_id":"a\\n","response":{"status_code":404,"request_id":"vllm-batch-2","body":null},"error":{"error":{"code":404}}}',
    '{"id":"vllm-1","custom_id":null,"response":{"status_code":400,"request_id":"vllm-batch-2","body":null},"error":"a \\"b\\""}',
  ]);
});
