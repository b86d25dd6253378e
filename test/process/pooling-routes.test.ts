/**
 * The routes that give numbers, over real servers and random weights: what they say is compared with what other routes
 * say of the same inputs, and with arithmetic.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import OpenAI, { BadRequestError } from "openai";
import { ClassifyReply } from "#wire/pooling/classify.ts";
import { CohereEmbedReply } from "#wire/pooling/cohere.ts";
import { EmbeddingsReply } from "#wire/pooling/embeddings.ts";
import { PoolingReply } from "#wire/pooling/pooling.ts";
import { RerankReply } from "#wire/pooling/rerank.ts";
import { ScoreReply } from "#wire/pooling/score.ts";
import { MEAN, RANK, TINY_POOLING, WORDS, writeBert, writeQwen3 } from "../fixtures/gguf-pooling.ts";
import { DEMO_MODEL, startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

const directory = mkdtempSync(join(tmpdir(), "castellan-pooling-routes-"));
/** A vector's numbers in other company (docs/decisions/0010-pooling.md). */
const COMPANY = 2e-4;
const WIDTH = TINY_POOLING.width;
// The fixture's words: [CLS] 2, [SEP] 3, then a letter at the start of a word from 5 on.
const CLS = 2;
const SEP = 3;
const LETTERS = (WORDS - 5) / 2;
const ids = (letters: string): number[] => [...letters].map((letter) => 5 + letter.charCodeAt(0) - 97);

/** Of a word of several letters, the first one's is the one that begins a word. */
const word = (letters: string): number[] =>
  [...letters].map((letter, at) => (at === 0 ? 5 : 5 + LETTERS) + letter.charCodeAt(0) - 97);

interface Failed {
  readonly status: number;
  readonly error: { readonly message: string; readonly type: string; readonly param: string | null };
  readonly body: Readonly<Record<string, unknown>>;
}

async function post<T>(
  server: TestServer,
  path: string,
  body: unknown,
  schema: { parse(value: unknown): T },
): Promise<T> {
  const answer = await server.fetch(path, { method: "POST", body: JSON.stringify(body) });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  return schema.parse(JSON.parse(text));
}

async function fails(server: TestServer, path: string, body: unknown): Promise<Failed> {
  const answer = await server.fetch(path, { method: "POST", body: JSON.stringify(body) });
  const parsed = (await answer.json()) as Failed["body"];
  return { status: answer.status, error: parsed["error"] as Failed["error"], body: parsed };
}

async function refusal(server: TestServer, path: string, body: unknown): Promise<string> {
  const { status, error } = await fails(server, path, body);
  assert.ok(status >= 400 && status < 500, `${status} ${error.message}`);
  return `${status} ${error.param}`;
}

async function vectors(server: TestServer, body: object): Promise<number[][]> {
  const { data } = await post(server, "/v1/embeddings", body, EmbeddingsReply);
  assert.deepEqual(
    data.map(({ index }) => index),
    data.map((_, at) => at),
  );
  return data.map(({ embedding }) => embedding as number[]);
}

function close(got: readonly number[], want: readonly number[], tolerance = COMPANY): void {
  assert.equal(got.length, want.length);
  got.forEach((value, at) => {
    assert.ok(Math.abs(value - (want[at] ?? Number.NaN)) <= tolerance, `${at}: ${value} is not ${want[at]}`);
  });
}

const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, at) => sum + value * (b[at] ?? 0), 0);
const norm = (a: readonly number[]): number => Math.sqrt(dot(a, a));

describe("an embedding model", () => {
  let server: TestServer;
  let client: OpenAI;
  before(async () => {
    const model = join(directory, "embedder.gguf");
    writeBert(model, { pooling: MEAN });
    const args = [
      ...["--served-model-name", "embedder", "--max-pooling-inputs", "300", "--max-pooling-tokens", "3000"],
      ...["--hf-overrides", '{"matryoshka_dimensions":[8]}', "--embed-prefixes", '{"search_query":"q "}'],
    ];
    server = await startServer({ model, args });
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: TEST_KEY, maxRetries: 0 });
  });
  after(() => server.stop());

  test("the official client reads the same numbers from base64, its default, and from lists", async () => {
    const input = ["a b c", "hello there", "x"];
    const packed = await client.embeddings.create({ model: "embedder", input });
    const plain = await client.embeddings.create({ model: "embedder", input, encoding_format: "float" });
    assert.deepEqual(
      packed.data.map(({ embedding }) => embedding),
      plain.data.map(({ embedding }) => embedding),
    );
    for (const { embedding } of plain.data) assert.ok(Math.abs(norm(embedding) - 1) < 1e-5);
    assert.deepEqual(
      plain.data.map(({ index, object }) => [index, object]),
      [0, 1, 2].map((at) => [at, "embedding"]),
    );
    assert.equal(plain.model, "embedder");
    assert.deepEqual(plain.usage, {
      prompt_tokens: 2 * 3 + 3 + 10 + 1,
      total_tokens: 2 * 3 + 3 + 10 + 1,
      completion_tokens: 0,
      prompt_tokens_details: null,
    });
  });

  test("a text is its tokens between the model's own; add_special_tokens leaves those out", async () => {
    const [text] = await vectors(server, { input: "a b c" });
    const [around, bare] = await vectors(server, { input: [[CLS, ...ids("abc"), SEP], ids("abc")] });
    const [plain] = await vectors(server, { input: "a b c", add_special_tokens: false });
    close(around ?? [], text ?? []);
    close(plain ?? [], bare ?? []);
    assert.ok(dot(text ?? [], bare ?? []) < 0.9999);
  });

  test("truncation keeps one side, with the model's tokens around it", async () => {
    const [first] = await vectors(server, { input: "a b" });
    const [last] = await vectors(server, { input: "c d" });
    const [right] = await vectors(server, { input: "a b c d", truncate_prompt_tokens: 4 });
    const [left] = await vectors(server, { input: "a b c d", truncate_prompt_tokens: 4, truncation_side: "left" });
    close(right ?? [], first ?? []);
    close(left ?? [], last ?? []);
    const long = "a ".repeat(5000);
    const { usage } = await post(
      server,
      "/v1/embeddings",
      { input: long, truncate_prompt_tokens: -1 },
      EmbeddingsReply,
    );
    assert.equal(usage.prompt_tokens, 128);
    assert.equal(await refusal(server, "/v1/embeddings", { input: long }), "400 input");
    for (const tokens of [129, 2, 0])
      assert.equal(
        await refusal(server, "/v1/embeddings", { input: "a", truncate_prompt_tokens: tokens }),
        "400 truncate_prompt_tokens",
      );
  });

  test("dimensions: those that the model is said to allow, of unit length again", async () => {
    const [whole] = await vectors(server, { input: "abc" });
    const [cut] = await vectors(server, { input: "abc", dimensions: 8 });
    const head = (whole ?? []).slice(0, 8);
    close(
      cut ?? [],
      head.map((value) => value / norm(head)),
      1e-5,
    );
    for (const dimensions of [0, 9, WIDTH + 1])
      assert.equal(await refusal(server, "/v1/embeddings", { input: "abc", dimensions }), "400 dimensions");
  });

  test("use_activation: false gives what the model gave", async () => {
    const [raw] = await vectors(server, { input: "abc", use_activation: false });
    const [unit] = await vectors(server, { input: "abc" });
    assert.ok(Math.abs(norm(raw ?? []) - 1) > 0.01);
    close(
      (raw ?? []).map((value) => value / norm(raw ?? [])),
      unit ?? [],
      1e-5,
    );
  });

  test("bytes: all numbers, and where each vector stands", async () => {
    const input = ["ab", "cd"];
    const want = await vectors(server, { input });
    const body = JSON.stringify({ input, encoding_format: "bytes", endianness: "big" });
    const answer = await server.fetch("/v1/embeddings", { method: "POST", body });
    assert.equal(answer.headers.get("content-type"), "application/octet-stream");
    const bytes = Buffer.from(await answer.arrayBuffer());
    const metadata = JSON.parse(answer.headers.get("metadata") ?? "") as {
      data: { start: number; end: number; shape: number[]; endianness: string }[];
    };
    metadata.data.forEach(({ start, end, shape, endianness }, at) => {
      assert.deepEqual([shape, endianness, end - start], [[WIDTH], "big", 4 * WIDTH]);
      const numbers = Array.from({ length: WIDTH }, (_, i) => bytes.readFloatBE(start + 4 * i));
      close(numbers, want[at] ?? []);
    });
    const bare = JSON.stringify({ input, encoding_format: "bytes_only", embed_dtype: "float16" });
    const half = await server.fetch("/v1/embeddings", { method: "POST", body: bare });
    assert.equal(half.headers.get("metadata"), null);
    assert.equal((await half.arrayBuffer()).byteLength, 2 * 2 * WIDTH);
  });

  test("three hundred inputs come back in their order; more, or more tokens, are refused", async () => {
    const input = Array.from({ length: 300 }, (_, at) => `${String.fromCharCode(97 + (at % 26))} x`);
    const many = await vectors(server, { input });
    assert.equal(many.length, 300);
    for (const at of [0, 31, 32, 64, 299]) {
      const [alone] = await vectors(server, { input: input[at] });
      close(many[at] ?? [], alone ?? []);
    }
    assert.equal(await refusal(server, "/v1/embeddings", { input: [...input, "y"] }), "400 input");
    const long = Array.from({ length: 60 }, () => "abcdefgh ".repeat(7));
    assert.equal(await refusal(server, "/v1/embeddings", { input: long }), "400 input");
  });

  test("/pooling: the vector of the input, and those of its tokens, whose mean is that vector", async () => {
    const whole = await post(server, "/pooling", { input: "a b", use_activation: false }, PoolingReply);
    const rows = await post(
      server,
      "/pooling",
      { input: "a b", task: "token_embed", use_activation: false },
      PoolingReply,
    );
    const tokens = rows.data[0]?.data as number[][];
    assert.equal(tokens.length, 4);
    const mean = Array.from({ length: WIDTH }, (_, at) => tokens.reduce((sum, row) => sum + (row[at] ?? 0), 0) / 4);
    close(whole.data[0]?.data as number[], mean, 1e-3);
    assert.equal(await refusal(server, "/pooling", { input: "a", task: "classify" }), "400 model");
    assert.equal(await refusal(server, "/pooling", { input: "a", task: "plugin" }), "400 task");
    assert.equal(await refusal(server, "/pooling", { data: {} }), "400 data");
  });

  test("/v2/embed: every type says the same vector, the prefix of an input_type stands before the text", async () => {
    const texts = ["a b", "c"];
    const types = ["float", "base64", "ubinary", "binary"];
    const reply = await post(
      server,
      "/v2/embed",
      { model: "embedder", texts, embedding_types: types },
      CohereEmbedReply,
    );
    const { float = [], base64 = [], ubinary = [], binary = [] } = reply.embeddings;
    const want = await vectors(server, { input: texts });
    float.forEach((vector, at) => {
      close(vector, want[at] ?? []);
      const bytes = Buffer.from(base64[at] ?? "", "base64");
      assert.deepEqual(
        Array.from({ length: WIDTH }, (_, i) => bytes.readFloatLE(4 * i)),
        vector,
      );
      const bits = vector.map((value) => (value >= 0 ? "1" : "0")).join("");
      const bytesOf = Array.from({ length: WIDTH / 8 }, (_, i) => Number.parseInt(bits.slice(8 * i, 8 * i + 8), 2));
      assert.deepEqual(ubinary[at], bytesOf);
      assert.deepEqual(
        binary[at],
        bytesOf.map((byte) => byte - 128),
      );
    });
    assert.deepEqual(reply.texts, texts);
    assert.deepEqual(reply.meta.tokens, { input_tokens: 7 });

    const body = { model: "embedder", texts: ["a"], input_type: "search_query" };
    const prefixed = await post(server, "/v2/embed", body, CohereEmbedReply);
    close(prefixed.embeddings.float?.[0] ?? [], (await vectors(server, { input: "q a" }))[0] ?? []);
    const parts = { model: "embedder", inputs: [{ content: [{ type: "text", text: "a b" }] }] };
    const mixed = await post(server, "/v2/embed", parts, CohereEmbedReply);
    close(mixed.embeddings.float?.[0] ?? [], want[0] ?? []);
  });

  test("/v2/embed cuts too long texts unless told not to, and fails in Cohere's shape", async () => {
    const texts = ["a b c d"];
    const start = await post(server, "/v2/embed", { texts, truncate: "START", max_tokens: 4 }, CohereEmbedReply);
    close(start.embeddings.float?.[0] ?? [], (await vectors(server, { input: "c d" }))[0] ?? []);
    const end = await post(server, "/v2/embed", { texts: ["a ".repeat(9000)] }, CohereEmbedReply);
    assert.equal(end.meta.tokens.input_tokens, 128);
    const failed = await fails(server, "/v2/embed", { texts, truncate: "NONE", max_tokens: 4 });
    assert.equal(failed.status, 400);
    assert.deepEqual(Object.keys(failed.body), ["id", "message", "error"]);
    assert.equal(failed.body["message"], failed.error.message);
    for (const [body, param] of [
      [{ texts: [] }, "400 texts"],
      [{}, "400 texts"],
      [{ texts: ["a"], inputs: [] }, "400 texts"],
      [{ texts: ["a"], input_type: "clustering" }, "400 input_type"],
      [{ texts: ["a"], embedding_types: ["int8"] }, "400 embedding_types.0"],
      [{ texts: ["a"], output_dimension: 3 }, "400 dimensions"],
    ] as const)
      assert.equal(await refusal(server, "/v2/embed", body), param);
    assert.equal((await fails(server, "/v2/embed", { images: ["data:image/png;base64,AA=="] })).status, 501);
  });

  test("scores are cosines of the embeddings; documents are ordered by them", async () => {
    const query = "what is it";
    const documents = ["it is a test", "nothing", "what is it", "zzz"];
    const [asked, ...given] = await vectors(server, { input: [query, ...documents] });
    const want = given.map((vector) => dot(asked ?? [], vector));
    for (const path of ["/score", "/v1/score"])
      for (const [first, second] of [
        ["queries", "documents"],
        ["queries", "items"],
        ["data_1", "data_2"],
        ["text_1", "text_2"],
      ] as const) {
        const { data, id } = await post(server, path, { [first]: query, [second]: documents }, ScoreReply);
        assert.match(id, /^score-/);
        close(
          data.map(({ score }) => score),
          want,
        );
      }
    const pairs = { text_1: [query, "zzz", "a", "b"], text_2: documents };
    const paired = await post(server, "/score", pairs, ScoreReply);
    assert.ok(Math.abs((paired.data[0]?.score ?? 0) - (want[0] ?? 0)) <= COMPANY);
    const order = want.map((_, at) => at).sort((a, b) => (want[b] ?? 0) - (want[a] ?? 0));
    for (const path of ["/rerank", "/v1/rerank", "/v2/rerank"]) {
      const ranked = await post(server, path, { query, documents }, RerankReply);
      assert.deepEqual(
        ranked.results.map(({ index }) => index),
        order,
      );
      assert.deepEqual(
        ranked.results.map(({ document }) => document.text),
        order.map((at) => documents[at]),
      );
      close(
        ranked.results.map(({ relevance_score }) => relevance_score),
        order.map((at) => want[at] ?? 0),
      );
      const top = await post(server, path, { query, documents, top_n: 2 }, RerankReply);
      assert.deepEqual(
        top.results.map(({ index }) => index),
        order.slice(0, 2),
      );
    }
    const cut = await post(server, "/score", { ...pairs, max_tokens_per_query: 1, max_tokens_per_doc: 1 }, ScoreReply);
    assert.equal(cut.usage.prompt_tokens, 8 * 3);
  });

  test("bad scoring requests are refused by their field", async () => {
    for (const [path, body, want] of [
      ["/score", {}, "400 queries"],
      ["/score", { queries: "a" }, "400 queries"],
      ["/score", { text_1: ["a", "b"], text_2: ["c"] }, "400 text_1"],
      ["/score", { text_1: [], text_2: ["c"] }, "400 text_1"],
      ["/score", { text_1: "a", text_2: [] }, "400 text_2"],
      ["/score", { text_1: "a", text_2: [3] }, "400 text_2.0"],
      ["/rerank", { documents: ["a"] }, "400 query"],
      ["/rerank", { query: "a" }, "400 documents"],
      ["/rerank", { query: "a", documents: [] }, "400 documents"],
      ["/v2/rerank", { query: "a", documents: ["b"], model: "nobody" }, "404 model"],
      ["/v1/embeddings", { input: [[5, 99_999]] }, "400 input.1"],
      ["/v1/embeddings", { input: [[5, -1]] }, "400 input.0.1"],
      ["/v1/embeddings", { input: "a", messages: [{ role: "user", content: "a" }] }, "400 input"],
      ["/v1/embeddings", { input: "a", priority: 1 }, "400 priority"],
      ["/v1/embeddings", { input: "a", normalize: true }, "400 normalize"],
      ["/v1/embeddings", { input: "a", embed_dtype: "fp8_e4m3", encoding_format: "base64" }, "400 embed_dtype"],
      ["/classify", { input: "a" }, "400 model"],
      ["/generative_scoring", { query: "a", items: ["b"], label_token_ids: [1] }, "400 model"],
    ] as const)
      assert.equal(await refusal(server, path, body), want, JSON.stringify([path, body]));
    const messages = [{ role: "user", content: "a" }];
    assert.equal((await fails(server, "/v1/embeddings", { messages })).status, 400, "the model has no template");
    await assert.rejects(client.embeddings.create({ model: "embedder", input: [] }), BadRequestError);
  });

  test("what was used is counted, and who hangs up leaves nothing behind", async () => {
    const used = async (): Promise<number> => {
      const answer = await fetch(`${server.opsUrl}/admin/usage?by=model`, {
        headers: { authorization: `Bearer ${server.adminKey}` },
      });
      const { data } = (await answer.json()) as { data: { prompt_tokens: number }[] };
      return data.reduce((sum, row) => sum + row.prompt_tokens, 0);
    };
    const before = await used();
    const { usage } = await post(server, "/v1/embeddings", { input: ["a b", "c"] }, EmbeddingsReply);
    assert.equal((await used()) - before, usage.prompt_tokens);

    const input = Array.from({ length: 250 }, () => "ab ".repeat(4));
    const leave = new AbortController();
    const call = server.fetch("/v1/embeddings", {
      method: "POST",
      body: JSON.stringify({ input }),
      signal: leave.signal,
    });
    leave.abort();
    await assert.rejects(call);
    await until("nothing is left of it", async () => {
      const metrics = await (await server.fetch("/metrics", { key: server.adminKey })).text();
      return /vllm:num_requests_running\{.*\} 0/.test(metrics) && /vllm:num_requests_waiting\{.*\} 0/.test(metrics);
    });
    const metrics = await (await server.fetch("/metrics", { key: server.adminKey })).text();
    const succeeded = /vllm:request_success_total\{.*finished_reason="stop".*\} (\d+)/.exec(metrics);
    assert.ok(Number(succeeded?.[1]) >= 2, metrics);
    await vectors(server, { input: "still there" });
  });
});

describe("a model with a chat template", () => {
  let server: TestServer;
  before(async () => {
    const model = join(directory, "chatty.gguf");
    const chatTemplate =
      "[CLS]{% for m in messages %}{{ m.role }} {{ m.content }}[SEP]{% endfor %}" +
      "{{ tone }}{% if add_generation_prompt %}assistant{% endif %}";
    writeBert(model, { pooling: MEAN, chatTemplate });
    server = await startServer({ model, args: ["--served-model-name", "chatty"] });
  });
  after(() => server.stop());

  const messages = [
    { role: "user", content: "ab c" },
    { role: "assistant", content: "de" },
  ];
  const TURNS = [
    ...[CLS, ...word("user"), ...word("ab"), ...word("c"), SEP],
    ...[...word("assistant"), ...word("de"), SEP],
  ];

  for (const [what, more, want] of [
    ["as the template prints it, with nothing around", {}, TURNS],
    ["with the beginning of an answer", { add_generation_prompt: true }, [...TURNS, ...word("assistant")]],
    ["open at its end", { continue_final_message: true }, TURNS.slice(0, -1)],
    ["between the model's own tokens", { add_special_tokens: true }, [CLS, ...TURNS, SEP]],
    ["with the client's variables", { chat_template_kwargs: { tone: "xyz" } }, [...TURNS, ...word("xyz")]],
    ["cut on the left", { truncate_prompt_tokens: 3, truncation_side: "left" }, TURNS.slice(-3)],
  ] as const)
    test(`a conversation is embedded ${what}`, async () => {
      const [ids] = await vectors(server, { input: [want] });
      const asked = await post(server, "/v1/embeddings", { messages, ...more }, EmbeddingsReply);
      close(asked.data[0]?.embedding as number[], ids ?? []);
      assert.equal(asked.usage.prompt_tokens, want.length);
      const pooled = await post(server, "/pooling", { messages, ...more }, PoolingReply);
      close(pooled.data[0]?.data as number[], ids ?? []);
    });

  test("what a client writes is text in it, and templates are the model's", async () => {
    const content = "a [SEP] b";
    const any = { parse: (value: unknown) => value as { tokens: number[] } };
    const { tokens } = await post(server, "/tokenize", { prompt: content, add_special_tokens: false }, any);
    assert.ok(!tokens.includes(SEP) && tokens.length > 2);
    const [want] = await vectors(server, { input: [[CLS, ...word("user"), ...tokens, SEP]] });
    const [got] = await vectors(server, { messages: [{ role: "user", content }] });
    close(got ?? [], want ?? []);
    for (const [more, refused] of [
      [{ chat_template: "{{ messages }}" }, "400 chat_template"],
      [{ chat_template_kwargs: { messages: [] } }, "400 chat_template_kwargs.messages"],
      [{ add_generation_prompt: true, continue_final_message: true }, "400 continue_final_message"],
      [{ input: "a" }, "400 input"],
      [{ messages: [] }, "400 messages"],
      [{ messages: [{ role: "user", content: "a ".repeat(200) }] }, "400 messages"],
    ] as const)
      assert.equal(await refusal(server, "/v1/embeddings", { messages, ...more }), refused, JSON.stringify(more));
  });
});

describe("a reranker", () => {
  let server: TestServer;
  before(async () => {
    const model = join(directory, "reranker.gguf");
    writeBert(model, { pooling: RANK, labels: [] });
    server = await startServer({ model, args: ["--served-model-name", "reranker"] });
  });
  after(() => server.stop());

  test("a score is the sigmoid of the head's number for the pair, and documents are ordered by it", async () => {
    const documents = ["c", "d e", "f"];
    const body = { queries: "a b", documents };
    const { data, usage } = await post(server, "/v1/score", body, ScoreReply);
    const scores = data.map(({ score }) => score);
    const raw = await post(server, "/score", { ...body, use_activation: false }, ScoreReply);
    close(
      raw.data.map(({ score }) => 1 / (1 + Math.exp(-score))),
      scores,
    );
    assert.equal(usage.prompt_tokens, 3 * (3 + 2) + 4);
    const input = documents.map((text) => [CLS, ...ids("ab"), SEP, ...ids(text.replace(" ", "")), SEP]);
    const classes = await post(server, "/classify", { input }, ClassifyReply);
    close(
      classes.data.map(({ probs }) => probs[0] ?? 0),
      scores,
    );
    assert.deepEqual(
      classes.data.map(({ num_classes, label }) => [num_classes, label]),
      [
        [1, null],
        [1, null],
        [1, null],
      ],
    );
    const ranked = await post(server, "/rerank", { query: "a b", documents }, RerankReply);
    const order = scores.map((_, at) => at).sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0));
    assert.deepEqual(
      ranked.results.map(({ index }) => index),
      order,
    );
  });

  test("a pair that is too long is refused, or cut from its longer text", async () => {
    const documents = ["c ".repeat(200)];
    assert.equal(await refusal(server, "/score", { queries: "a b", documents }), "400 documents");
    const body = { queries: "a b", documents, truncate_prompt_tokens: 8 };
    const { data, usage } = await post(server, "/score", body, ScoreReply);
    const same = await post(server, "/score", { queries: "a b", documents: "c c c" }, ScoreReply);
    assert.equal(usage.prompt_tokens, 8);
    close([data[0]?.score ?? 0], [same.data[0]?.score ?? 1]);
  });

  test("it has no embeddings", async () => {
    for (const path of ["/v1/embeddings", "/pooling"])
      assert.equal(await refusal(server, path, { input: "a", task: "embed" }), "400 model");
    assert.equal(await refusal(server, "/v2/embed", { texts: ["a"] }), "400 model");
    const { error } = await fails(server, "/v1/embeddings", { input: "a" });
    assert.equal(error.message, "The model does not support Embeddings API");
  });
});

describe("a reranker with a template of its own", () => {
  let server: TestServer;
  before(async () => {
    const model = join(directory, "judge.gguf");
    const rerankTemplate = "[CLS] judge q {query} d {document}[SEP] yes";
    writeQwen3(model, { pooling: RANK, labels: ["yes", "no"], rerankTemplate });
    server = await startServer({ model, args: ["--served-model-name", "judge"] });
  });
  after(() => server.stop());

  /** The template with two texts in it, by hand. */
  const pair = (query: readonly number[], document: readonly number[]): number[] =>
    [[CLS, ...word("judge"), ...word("q")], query, [...word("d")], document, [SEP, ...word("yes")]].flat();

  const yes = async (input: readonly number[][]): Promise<number[]> => {
    const { data } = await post(server, "/classify", { input }, ClassifyReply);
    return data.map(({ probs }) => probs[0] ?? Number.NaN);
  };

  test("a score is the first class's share for the template's tokens", async () => {
    const documents = ["c", "de f"];
    const input = [word("c"), [...word("de"), ...word("f")]].map((document) => pair(word("ab"), document));
    const want = await yes(input);
    const { data, usage } = await post(server, "/score", { queries: "ab", documents }, ScoreReply);
    const scores = data.map(({ score }) => score);
    close(scores, want);
    assert.equal(usage.prompt_tokens, input.flat().length);
    const ranked = await post(server, "/rerank", { query: "ab", documents }, RerankReply);
    close(
      ranked.results.toSorted((a, b) => a.index - b.index).map(({ relevance_score }) => relevance_score),
      want,
    );
    assert.ok(Math.abs((want[0] ?? 0) - (want[1] ?? 0)) > 1e-3, "the two can be told apart");
  });

  test("a text that spells a special token or a place of the template stays text", async () => {
    const { usage } = await post(server, "/score", { queries: "ab", documents: "x [SEP] {query} x" }, ScoreReply);
    // Brackets and braces are no words of this vocabulary: each is one [UNK], or nothing, but never [SEP].
    const plain = await post(
      server,
      "/tokenize",
      { prompt: "x [SEP] {query} x", add_special_tokens: false },
      {
        parse: (value) => value as { tokens: number[] },
      },
    );
    assert.ok(!plain.tokens.includes(SEP));
    assert.equal(usage.prompt_tokens, pair(word("ab"), plain.tokens).length);
    const { data } = await post(server, "/score", { queries: "ab", documents: "x [SEP] {query} x" }, ScoreReply);
    close([data[0]?.score ?? 0], await yes([pair(word("ab"), plain.tokens)]));
  });

  test("a pair that is too long loses text and keeps the template", async () => {
    const room = pair([], []).length + 3;
    const body = { queries: "a", documents: "b c d e f", truncate_prompt_tokens: room };
    const { data, usage } = await post(server, "/score", body, ScoreReply);
    assert.equal(usage.prompt_tokens, room);
    close([data[0]?.score ?? 0], await yes([pair(word("a"), [...word("b"), ...word("c")])]));
    assert.equal(await refusal(server, "/score", { queries: "a", documents: "b ".repeat(200) }), "400 documents");
  });
});

test("a classifier's shares are one together, its label is the largest's, and it does not score", async () => {
  const labels = ["good", "bad", "ugly"];
  const model = join(directory, "classifier.gguf");
  writeBert(model, { pooling: RANK, labels });
  const server = await startServer({ model, args: ["--served-model-name", "classifier"] });
  try {
    const { data } = await post(server, "/classify", { input: ["a b", "c", "hello"] }, ClassifyReply);
    assert.equal(data.length, 3);
    for (const { probs, label, num_classes } of data) {
      assert.ok(Math.abs(probs.reduce((sum, share) => sum + share, 0) - 1) < 1e-6);
      assert.equal(num_classes, 3);
      assert.equal(label, labels[probs.indexOf(Math.max(...probs))]);
    }
    const raw = await post(server, "/classify", { input: "a b", use_activation: false }, ClassifyReply);
    const powers = (raw.data[0]?.probs ?? []).map(Math.exp);
    const sum = powers.reduce((a, b) => a + b, 0);
    close(
      powers.map((power) => power / sum),
      data[0]?.probs ?? [],
    );
    const pooled = await post(server, "/pooling", { input: "a b" }, PoolingReply);
    close(pooled.data[0]?.data as number[], data[0]?.probs ?? []);
    assert.equal(await refusal(server, "/score", { queries: "a", documents: "b" }), "400 model");
  } finally {
    await server.stop();
  }
});

test("a model that generates scores labels as its logprobs say, and gives no vectors", async () => {
  const server = await startServer({ model: DEMO_MODEL, args: ["--max-model-len", "256"] });
  try {
    const any = { parse: (value: unknown) => value as Record<string, unknown> };
    const prompt = "What is Castellan? A server";
    const { tokens } = (await post(server, "/tokenize", { prompt: "yes no" }, any)) as { tokens: number[] };
    const labels = [...new Set(tokens)].slice(0, 2);
    const asked = { prompt, max_tokens: 1, logprobs: 2, logprob_token_ids: labels, return_tokens_as_token_ids: true };
    const completion = (await post(server, "/v1/completions", asked, any)) as {
      choices: { logprobs: { top_logprobs: Record<string, number>[] } }[];
    };
    const top = completion.choices[0]?.logprobs.top_logprobs[0] ?? {};
    const shares = labels.map((label) => Math.exp(top[`token_id:${label}`] ?? Number.NaN));
    const body = { query: "What is Castellan?", items: [" A server", " B"], label_token_ids: labels };
    const plain = await post(server, "/generative_scoring", { ...body, apply_softmax: false }, ScoreReply);
    close([plain.data[0]?.score ?? -1], [shares[0] ?? 0], 1e-6);
    const among = await post(server, "/generative_scoring", body, ScoreReply);
    close([among.data[0]?.score ?? -1], [(shares[0] ?? 0) / ((shares[0] ?? 0) + (shares[1] ?? 0))], 1e-6);
    assert.match(among.id, /^generative-scoring-/);
    assert.deepEqual([among.data.length, among.usage.completion_tokens], [2, 2]);
    const turned = { ...body, query: " A server", items: ["What is Castellan?"], item_first: true };
    const swapped = await post(server, "/generative_scoring", turned, ScoreReply);
    close([swapped.data[0]?.score ?? -1], [among.data[0]?.score ?? 0], 1e-6);
    const long = await post(server, "/generative_scoring", { ...body, items: [" a".repeat(900)] }, ScoreReply);
    assert.equal(long.usage.prompt_tokens, 255);
    for (const [change, want] of [
      [{ label_token_ids: [] }, "400 label_token_ids"],
      [{ label_token_ids: [10_000_000] }, "400 label_token_ids.0"],
      [{ items: [] }, "400 items"],
      [{ items: "a" }, "400 items"],
      [{ query: 3 }, "400 query"],
    ] as const)
      assert.equal(await refusal(server, "/generative_scoring", { ...body, ...change }), want);
    for (const [path, other] of [
      ["/v1/embeddings", { input: "a" }],
      ["/v2/embed", { texts: ["a"] }],
      ["/pooling", { input: "a" }],
      ["/classify", { input: "a" }],
      ["/v1/score", { queries: "a", documents: "b" }],
      ["/v2/rerank", { query: "a", documents: ["b"] }],
    ] as const)
      assert.equal(await refusal(server, path, other), "400 model");
  } finally {
    await server.stop();
  }
});
