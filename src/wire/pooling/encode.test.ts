import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { PoolOutput, PoolTask } from "#core/pool.ts";
import type { PoolAnswer } from "#core/pool-calls.ts";
import { encodeClassify } from "./classify.ts";
import { encodeCohere } from "./cohere.ts";
import { cohere } from "./dialect.ts";
import { encodeEmbeddings } from "./embeddings.ts";
import { encodePooling } from "./pooling.ts";
import { encodeRerank } from "./rerank.ts";
import { encodeScore } from "./score.ts";
import { bytesAnswer, rawBytes } from "./vectors.ts";

const HEAD = { id: "x-1", created: 5 };
const FLOAT = { encoding: "float", dtype: "float32", endianness: "native" } as const;
const USAGE = '"usage":{"prompt_tokens":7,"total_tokens":7,"completion_tokens":0,"prompt_tokens_details":null}';
const usage = { promptTokens: 7, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };

const vector = (...values: number[]): PoolOutput => ({
  values: Float32Array.from(values),
  rows: 1,
  width: values.length,
});

function answer(outputs: readonly PoolOutput[], task: PoolTask = "embed"): PoolAnswer {
  return { model: "m", task, outputs, labels: ["no", "yes"], usage };
}

test("embeddings as lists and as base64", async () => {
  const given = answer([vector(0.5, -2), vector(1, 0)]);
  assert.equal(
    await encodeEmbeddings(given, HEAD, FLOAT),
    '{"id":"x-1","object":"list","created":5,"model":"m","data":[{"index":0,"object":"embedding","embedding":[0.5,-2]},' +
      `{"index":1,"object":"embedding","embedding":[1,0]}],${USAGE}}`,
  );
  assert.equal(
    await encodeEmbeddings(answer([vector(1, -2)]), HEAD, { ...FLOAT, encoding: "base64" }),
    '{"id":"x-1","object":"list","created":5,"model":"m","data":[{"index":0,"object":"embedding","embedding":"AACAPwAAAMA="}],' +
      `${USAGE}}`,
  );
});

test("one vector a token is a list of lists", async () => {
  const rows = { values: Float32Array.of(1, 2, 3, 4), rows: 2, width: 2 };
  assert.equal(
    await encodePooling(answer([rows], "token_embed"), HEAD, FLOAT),
    `{"id":"x-1","object":"list","created":5,"model":"m","data":[{"index":0,"object":"pooling","data":[[1,2],[3,4]]}],${USAGE}}`,
  );
});

test("a long answer is printed whole", async () => {
  const outputs = Array.from({ length: 40 }, (_, at) => ({
    values: new Float32Array(4096).fill(at),
    rows: 1,
    width: 4096,
  }));
  const printed = JSON.parse(await encodeEmbeddings(answer(outputs), HEAD, FLOAT)) as {
    data: { index: number; embedding: number[] }[];
  };
  assert.deepEqual(
    printed.data.map(({ index, embedding }) => [index, embedding.length, embedding[4095]]),
    outputs.map((_, at) => [at, 4096, at]),
  );
});

test("numbers as bytes of each kind, in either order", () => {
  const hex = (values: number[], format: Parameters<typeof rawBytes>[1]): string =>
    Buffer.from(rawBytes(Float32Array.from(values), format)).toString("hex");
  assert.equal(hex([1, -2], { dtype: "float32", endianness: "native" }), "0000803f000000c0");
  assert.equal(hex([1, -2], { dtype: "float32", endianness: "big" }), "3f800000c0000000");
  assert.equal(hex([1, -2], { dtype: "float16", endianness: "little" }), "003c00c0");
  assert.equal(hex([1, -2], { dtype: "bfloat16", endianness: "big" }), "3f80c000");
  // Ties go to the even one: 1 + 2^-8 down, 1 + 3·2^-8 up; just above a tie goes up.
  const near = [1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20];
  assert.equal(hex(near, { dtype: "bfloat16", endianness: "big" }), "3f803f823f81");
});

test("raw bytes with where each vector stands, in characters that a header may hold", () => {
  const given = { ...answer([vector(1), vector(2)]), model: "mö😀" };
  const { body, headers } = bytesAnswer(given, HEAD, { ...FLOAT, encoding: "bytes" });
  assert.equal(Buffer.from(body).toString("hex"), "0000803f00000040");
  assert.equal(
    headers["metadata"],
    '{"id":"x-1","created":5,"model":"m\\u00f6\\ud83d\\ude00","data":[' +
      '{"index":0,"embed_dtype":"float32","endianness":"native","start":0,"end":4,"shape":[1]},' +
      `{"index":1,"embed_dtype":"float32","endianness":"native","start":4,"end":8,"shape":[1]}],${USAGE}}`,
  );
  assert.deepEqual(bytesAnswer(given, HEAD, { ...FLOAT, encoding: "bytes_only" }).headers, {});
});

test("Cohere's embeddings: as often as there are types", async () => {
  const given = answer([vector(1, -1, 0, -0.5, 2, -2, 3, -3)]);
  const types = ["float", "binary", "ubinary"] as const;
  const meta = '"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":7},"tokens":{"input_tokens":7}}';
  assert.equal(
    await encodeCohere(given, "embd-1", { types, texts: ["a"] }),
    `{"id":"embd-1","embeddings":{"float":[[1,-1,0,-0.5,2,-2,3,-3]],"binary":[[42]],"ubinary":[[170]]},"texts":["a"],${meta}}`,
  );
  const bare = await encodeCohere(answer([vector(1)]), "embd-1", { types: ["base64"], texts: undefined });
  assert.equal(bare, `{"id":"embd-1","embeddings":{"base64":["AACAPw=="]},${meta}}`);
});

test("classes with the label of the largest, or none", () => {
  const { data } = encodeClassify(answer([vector(0.25, 0.75), vector(0.5, 0.5)], "classify"), HEAD);
  assert.deepEqual(data, [
    { index: 0, label: "yes", probs: [0.25, 0.75], num_classes: 2 },
    { index: 1, label: "no", probs: [0.5, 0.5], num_classes: 2 },
  ]);
  const nameless = { ...answer([vector(0.25)], "classify"), labels: [] };
  assert.equal(encodeClassify(nameless, HEAD).data[0]?.label, null);
});

test("scores, and documents in their order", () => {
  const scores = { model: "m", scores: [0.1, 0.9, 0.1, 0.5], usage };
  assert.deepEqual(encodeScore(scores, HEAD).data[1], { index: 1, object: "score", score: 0.9 });
  const parts = [{ type: "text", text: "d" }] as const;
  const documents = [{ text: "a" }, { text: "b" }, { text: "c" }, { text: "d", parts }];
  assert.deepEqual(encodeRerank(scores, "rerank-1", { documents, top: 3 }), {
    id: "rerank-1",
    model: "m",
    usage: { prompt_tokens: 7, total_tokens: 7 },
    results: [
      { index: 1, document: { text: "b", multi_modal: null }, relevance_score: 0.9 },
      { index: 3, document: { text: null, multi_modal: parts }, relevance_score: 0.5 },
      { index: 0, document: { text: "a", multi_modal: null }, relevance_score: 0.1 },
    ],
  });
});

test("failures at Cohere's paths have both shapes; a stranger's has no id", () => {
  const failure = new Fault("invalid_request", "why", { param: "texts" });
  assert.deepEqual(cohere.fault(failure, "r1"), {
    status: 400,
    body: {
      id: "r1",
      message: "why",
      error: { message: "why", type: "BadRequestError", param: "texts", code: 400 },
    },
  });
  const stranger = cohere.fault(new Fault("unauthenticated", "no key"), "r1");
  assert.deepEqual(stranger, { status: 401, body: { message: "Unauthorized", error: "Unauthorized" } });
});
