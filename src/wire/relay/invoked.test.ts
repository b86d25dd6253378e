import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { invokedOf } from "./invoked.ts";

const of = (text: string) => invokedOf(Buffer.from(text));

test("invocations: the fields tell the route, null is none, and nothing is read into", () => {
  assert.equal(of('{"prompt":["a","b"]}'), "completion");
  assert.equal(of('{"messages":[{}],"prompt":null,"kv_transfer_params":{"a":1}}'), "chat");
  assert.equal(of('{"input":["a"]}'), "embedding");
  assert.equal(of('{"query":"a","documents":["b"]}'), "rerank");
});

test("invocations: what no route takes, and what is no JSON, is refused", () => {
  for (const [text, kind] of [
    ['{"foo":1}', "invalid_request"],
    ['{"input":null}', "invalid_request"],
    ['["input"]', "invalid_request"],
    ["{", "invalid_json"],
    ['{"prompt":"a","prompt":"b"}', "invalid_json"],
  ] as const)
    assert.throws(
      () => of(text),
      (error) => error instanceof Fault && error.kind === kind,
      text,
    );
});
