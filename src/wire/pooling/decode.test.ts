import assert from "node:assert/strict";
import { test } from "node:test";
import type { z } from "zod";
import { Fault, type FaultKind } from "#core/fault.ts";
import type { PoolSource } from "#core/pool-calls.ts";
import { DEFAULT_CAPS, type RequestCaps } from "#core/request-caps.ts";
import { ClassifyBody, decodeClassify } from "./classify.ts";
import { CohereEmbedBody, decodeCohere } from "./cohere.ts";
import { decodeEmbeddings, EmbeddingsBody } from "./embeddings.ts";
import { decodeGenerativeScoring, GenerativeScoringBody } from "./generative-scoring.ts";
import { decodePooling, PoolingBody } from "./pooling.ts";
import { decodeRerank, RerankBody } from "./rerank.ts";
import { decodeScore, ScoreBody } from "./score.ts";

type Body = Record<string, unknown>;
const PREFIXES = new Map([["search_query", "query: "]]);
const CAPS: RequestCaps = { ...DEFAULT_CAPS, poolingInputs: 3 };

const embeddings = (body: Body) => decodeEmbeddings(EmbeddingsBody.parse(body), CAPS);
const pooling = (body: Body) => decodePooling(PoolingBody.parse(body), CAPS);
const cohere = (body: Body) => decodeCohere(CohereEmbedBody.parse(body), CAPS, PREFIXES);
const score = (body: Body) => decodeScore(ScoreBody.parse(body), CAPS);
const rerank = (body: Body) => decodeRerank(RerankBody.parse(body), CAPS);
const labels = (body: Body) => decodeGenerativeScoring(GenerativeScoringBody.parse(body), CAPS);

const prompts = (source: PoolSource): unknown => (source.kind === "prompts" ? source.prompts : source.messages);

test("the four forms of input, and a conversation", () => {
  for (const [input, want] of [
    ["a", ["a"]],
    ["", [""]],
    [
      ["a", "b"],
      ["a", "b"],
    ],
    [[1, 2], [[1, 2]]],
    [
      [[1], [2, 3]],
      [[1], [2, 3]],
    ],
  ] as const)
    assert.deepEqual(prompts(embeddings({ input }).call.source), want);
  const { source } = embeddings({ messages: [{ role: "user", content: "hi" }] }).call;
  assert.partialDeepStrictEqual(source, {
    kind: "chat",
    messages: [{ role: "user", content: "hi" }],
    template: { addGenerationPrompt: false, addSpecialTokens: false, continueFinalMessage: false },
  });
});

test("embeddings: what is said and what is not", () => {
  const { call, format } = embeddings({ input: "a" });
  assert.deepEqual(call, {
    task: "embed",
    api: "Embeddings",
    source: { kind: "prompts", prompts: ["a"], addSpecialTokens: true, field: "input" },
  });
  assert.deepEqual(format, { encoding: "float", dtype: "float32", endianness: "native" });
  const full = embeddings({
    input: "a",
    model: "m",
    user: "u",
    dimensions: 8,
    encoding_format: "bytes",
    embed_dtype: "bfloat16",
    endianness: "big",
    truncate_prompt_tokens: -1,
    truncation_side: "left",
    padding: "do_not_pad",
    use_activation: false,
    add_special_tokens: false,
    priority: 3,
    cache_salt: "s",
    unknown: 1,
  });
  assert.deepEqual(full, {
    call: {
      model: "m",
      task: "embed",
      api: "Embeddings",
      source: { kind: "prompts", prompts: ["a"], addSpecialTokens: false, field: "input" },
      dimensions: 8,
      truncate: { tokens: -1, side: "left", field: "truncate_prompt_tokens" },
      useActivation: false,
      priority: 3,
    },
    format: { encoding: "bytes", dtype: "bfloat16", endianness: "big" },
  });
});

test("pooling: a task, or the model's own", () => {
  assert.equal(pooling({ input: "a" }).call.task, undefined);
  for (const task of ["embed", "token_embed", "classify"] as const)
    assert.equal(pooling({ input: "a", task }).call.task, task);
});

test("Cohere: prefixes, truncation and types", () => {
  const { call, types, texts } = cohere({ model: "m", texts: ["a", "b"], input_type: "search_query" });
  assert.deepEqual(prompts(call.source), ["query: a", "query: b"]);
  assert.deepEqual([types, texts, call.packed], [["float"], ["a", "b"], undefined]);
  assert.deepEqual(call.truncate, { tokens: -1, side: "right", field: "max_tokens" });
  const start = cohere({ texts: ["a"], truncate: "START", max_tokens: 5, embedding_types: ["ubinary", "float"] });
  assert.deepEqual(start.call.truncate, { tokens: 5, side: "left", field: "max_tokens" });
  assert.deepEqual([start.call.packed, start.types], [true, ["ubinary", "float"]]);
  const none = cohere({ texts: ["a"], truncate: "NONE", max_tokens: 5, output_dimension: 8 }).call;
  assert.deepEqual([none.truncate, none.dimensions], [undefined, 8]);
  assert.equal(none.source.kind === "prompts" && none.source.mostTokens, 5);
  const part = (text: string) => ({ type: "text", text });
  const inputs = cohere({ inputs: [{ content: [part("a"), part("b")] }] });
  assert.deepEqual([prompts(inputs.call.source), inputs.texts], [["a\nb"], undefined]);
});

test("score: either pair of names, texts or text parts", () => {
  for (const [first, second] of [
    ["queries", "documents"],
    ["queries", "items"],
    ["data_1", "data_2"],
    ["text_1", "text_2"],
  ] as const) {
    const call = score({ [first]: "a", [second]: ["b", { content: [{ type: "text", text: "c" }] }] });
    assert.deepEqual([call.queries, call.documents, call.fields], [["a"], ["b", "c"], [first, second]]);
  }
  const { queryTokens, documentTokens } = score({
    text_1: "a",
    text_2: "b",
    max_tokens_per_query: 0,
    max_tokens_per_doc: 7,
  });
  assert.deepEqual([queryTokens, documentTokens], [undefined, 7]);
});

test("rerank: all results unless top_n says fewer", () => {
  const body = { query: "q", documents: ["a", "b"] };
  assert.deepEqual(
    [rerank(body).top, rerank({ ...body, top_n: 0 }).top, rerank({ ...body, top_n: -1 }).top],
    [2, 2, 2],
  );
  assert.equal(rerank({ ...body, top_n: 1 }).top, 1);
});

test("generative scoring: what is said and what is not", () => {
  assert.deepEqual(labels({ query: "q", items: ["a"], label_token_ids: [1, 2] }), {
    query: "q",
    items: ["a"],
    labels: [1, 2],
    amongLabels: true,
    itemFirst: false,
    addSpecialTokens: true,
  });
  const call = labels({ query: [1], items: [[2], [3]], label_token_ids: [4], apply_softmax: false, item_first: true });
  assert.deepEqual([call.query, call.items, call.amongLabels, call.itemFirst], [[1], [[2], [3]], false, true]);
});

const many = ["a", "b", "c", "d"];
const image = { type: "image_url", image_url: { url: "https://x/y.png" } };
const EMBEDDINGS_REFUSED: readonly (readonly [Body, string, FaultKind?])[] = [
  [{}, "input"],
  [{ input: null }, "input"],
  [{ input: [] }, "input"],
  [{ input: {} }, "input"],
  [{ input: many }, "input"],
  [{ input: many.map(() => [1]) }, "input"],
  [{ input: ["a", 1] }, "input.1"],
  [{ input: [[1], "a"] }, "input.1"],
  [{ input: [1, -1] }, "input.1"],
  [{ input: [[1, 2.5]] }, "input.0.1"],
  [{ input: [1e300] }, "input.0"],
  [{ input: "a", messages: [{ role: "user", content: "a" }] }, "input"],
  [{ messages: [] }, "messages"],
  [{ messages: [{ role: "user", content: [image] }] }, "messages.0.content.0.type", "not_implemented"],
  [{ input: "a", truncate_prompt_tokens: -2 }, "truncate_prompt_tokens"],
  [{ input: "a", truncation_side: "middle" }, "truncation_side"],
  [{ input: "a", encoding_format: "hex" }, "encoding_format"],
  [{ input: "a", embed_dtype: "fp8_e5m2" }, "embed_dtype"],
  [{ input: "a", embed_dtype: "int8" }, "embed_dtype"],
  [{ input: "a", endianness: "middle" }, "endianness"],
  [{ input: "a", dimensions: 1.5 }, "dimensions"],
  [{ input: "a", padding: "max_length" }, "padding", "not_implemented"],
  [{ input: "a", normalize: false }, "normalize"],
  [{ input: "a", activation: true }, "activation"],
  [{ input: "a", softmax: true }, "softmax"],
  [{ input: "a", cache_salt: "a/b" }, "cache_salt"],
  [{ input: "a", cache_salt: "a\0b" }, "cache_salt"],
  [{ input: "a", request_id: "x".repeat(257) }, "request_id"],
  [{ input: "a", chat_template: "{{ 1 }}" }, "chat_template"],
  [{ input: "a", mm_processor_kwargs: { a: 1 } }, "mm_processor_kwargs"],
  [{ input: "a", media_io_kwargs: { a: 1 } }, "media_io_kwargs"],
  [
    { messages: [{ role: "user", content: "a" }], chat_template_kwargs: { tokenize: true } },
    "chat_template_kwargs.tokenize",
  ],
];

function refuses<S extends z.ZodType>(
  name: string,
  schema: S,
  decode: (body: z.infer<S>) => unknown,
  table: readonly (readonly [Body, string, FaultKind?])[],
): void {
  for (const [body, param, kind = "invalid_request"] of table)
    test(`${name} refuses ${JSON.stringify(body).slice(0, 90)} by ${param}`, () => {
      const parsed = schema.safeParse(body);
      if (!parsed.success) return assert.equal(parsed.error.issues[0]?.path.join("."), param);
      assert.throws(
        () => decode(parsed.data),
        (error) => error instanceof Fault && error.param === param && error.kind === kind,
      );
    });
}

refuses("embeddings", EmbeddingsBody, (body) => decodeEmbeddings(body, CAPS), [...EMBEDDINGS_REFUSED]);
refuses("classify", ClassifyBody, (body) => decodeClassify(body, CAPS), [
  [{}, "input"],
  [{ input: many }, "input"],
  [{ input: "a", activation: true }, "activation"],
]);
refuses("pooling", PoolingBody, (body) => decodePooling(body, CAPS), [
  [{ input: "a", task: "plugin" }, "task"],
  [{ input: "a", task: "score" }, "task"],
  [{ input: "a", task: "toString" }, "task"],
  [{ data: "x" }, "data"],
  [{ input: "a", data: null }, "data"],
]);
refuses("Cohere", CohereEmbedBody, (body) => decodeCohere(body, CAPS, PREFIXES), [
  [{}, "texts"],
  [{ texts: [] }, "texts"],
  [{ texts: many }, "texts"],
  [{ texts: ["a", 1] }, "texts.1"],
  [{ texts: ["a"], inputs: [{ content: [] }] }, "texts"],
  [{ inputs: [{ content: [image] }] }, "inputs.0.content.0.type", "not_implemented"],
  [{ inputs: [7] }, "inputs.0"],
  [{ images: ["data:image/png;base64,AA=="] }, "images", "not_implemented"],
  [{ texts: ["a"], input_type: "clustering" }, "input_type"],
  [{ texts: ["a"], embedding_types: ["float", "int8"] }, "embedding_types.1"],
  [{ texts: ["a"], embedding_types: "float" }, "embedding_types"],
  [{ texts: ["a"], truncate: "MIDDLE" }, "truncate"],
  [{ texts: ["a"], max_tokens: 0 }, "max_tokens"],
]);
refuses("score", ScoreBody, (body) => decodeScore(body, CAPS), [
  [{}, "queries"],
  [{ queries: "a", data_2: "b" }, "queries"],
  [{ text_1: "a", text_2: many }, "text_2"],
  [{ text_1: many, text_2: "a" }, "text_1"],
  [{ text_1: "a", text_2: ["b", 1] }, "text_2.1"],
  [{ text_1: "a", text_2: {} }, "text_2.content"],
  [{ text_1: "a", text_2: { content: [image] } }, "text_2.content.0.type", "not_implemented"],
  [{ text_1: "a", text_2: "b", max_tokens_per_doc: -1 }, "max_tokens_per_doc"],
]);
refuses("rerank", RerankBody, (body) => decodeRerank(body, CAPS), [
  [{ documents: ["a"] }, "query"],
  [{ query: ["q"], documents: ["a"] }, "query"],
  [{ query: "q" }, "documents"],
  [{ query: "q", documents: many }, "documents"],
  [{ query: "q", documents: ["a"], top_n: 1.5 }, "top_n"],
]);
refuses("generative scoring", GenerativeScoringBody, (body) => decodeGenerativeScoring(body, CAPS), [
  [{ query: "q", items: ["a"] }, "label_token_ids"],
  [{ query: "q", items: ["a"], label_token_ids: [] }, "label_token_ids"],
  [{ query: "q", items: ["a"], label_token_ids: [-1] }, "label_token_ids.0"],
  [{ query: "q", items: ["a"], label_token_ids: Array.from({ length: 129 }, (_, i) => i) }, "label_token_ids"],
  [{ query: "q", items: [], label_token_ids: [1] }, "items"],
  [{ query: "q", items: [1, 2], label_token_ids: [1] }, "items"],
  [{ query: "q", items: "a", label_token_ids: [1] }, "items"],
  [{ query: "q", items: many, label_token_ids: [1] }, "items"],
  [{ query: "q", items: ["a", [1]], label_token_ids: [1] }, "items.1"],
  [{ items: ["a"], label_token_ids: [1] }, "query"],
  [{ query: "q", items: ["a"], label_token_ids: [1], cache_salt: "\0" }, "cache_salt"],
]);
