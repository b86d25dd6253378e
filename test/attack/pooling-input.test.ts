/**
 * Whatever stands in whatever place of a body of the pooling routes, the answer is numbers or a 4xx in the route's shape.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { createHttp, type Http } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture } from "#serving/_fixture.ts";
import { poolFixture } from "#serving/_fixture-pooling.ts";
import { pathsOf, put, STRANGE } from "#test/attack/places.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { ErrorReply } from "#wire/openai/replies.ts";

const BASIC = {
  model: "demo",
  user: "u",
  truncate_prompt_tokens: 8,
  truncation_side: "left",
  padding: "do_not_pad",
  request_id: "r",
  priority: 0,
  use_activation: true,
  cache_salt: "s",
  mm_processor_kwargs: {},
};
const VECTORS = {
  ...BASIC,
  add_special_tokens: true,
  encoding_format: "base64",
  embed_dtype: "float16",
  endianness: "big",
};
const INPUT = { input: [[1, 2], [3]] };
const CHAT = {
  messages: [{ role: "user", content: [{ type: "text", text: "hi" }] }],
  add_generation_prompt: true,
  continue_final_message: false,
  chat_template_kwargs: { a: 1 },
};
const PARTS = { content: [{ type: "text", text: "t" }] };
const SCORING = { ...BASIC, max_tokens_per_query: 1, max_tokens_per_doc: 1 };
const RERANK = { ...SCORING, query: PARTS, documents: ["a", PARTS], top_n: 1 };

/** Every field of every route, in every form that it takes; the whole of each is answered. */
const WHOLE: readonly (readonly [path: string, body: object])[] = [
  ["/v1/embeddings", { ...VECTORS, ...INPUT, dimensions: 3 }],
  ["/v1/embeddings", { ...VECTORS, input: ["a", "b"], encoding_format: "bytes" }],
  ["/v1/embeddings", { ...VECTORS, ...CHAT }],
  ["/pooling", { ...VECTORS, ...INPUT, task: "token_embed", encoding_format: "float" }],
  ["/classify", { ...BASIC, ...INPUT }],
  [
    "/v2/embed",
    { model: "demo", texts: ["a"], input_type: "search_query", truncate: "START", max_tokens: 4, priority: 0 },
  ],
  ["/v2/embed", { inputs: [PARTS], embedding_types: ["float", "base64"], output_dimension: 3, truncate: "END" }],
  ["/score", { ...SCORING, queries: ["a", PARTS], documents: ["a", "b"] }],
  ["/v1/score", { ...SCORING, text_1: "a", text_2: PARTS }],
  ["/rerank", RERANK],
  ["/v1/rerank", RERANK],
  ["/v2/rerank", RERANK],
];
const GENERATIVE: readonly (readonly [path: string, body: object])[] = [
  [
    "/generative_scoring",
    {
      model: "demo",
      query: "q",
      items: [[1], [2]],
      label_token_ids: [65],
      apply_softmax: false,
      item_first: true,
      add_special_tokens: true,
      cache_salt: "s",
      priority: 0,
      request_id: "r",
    },
  ],
  ["/generative_scoring", { query: [1], items: ["a"], label_token_ids: [65] }],
];

async function server(t: TestContext, generates: boolean): Promise<Http> {
  const setting = generates
    ? fixture({ reply: () => [65] })
    : poolFixture({ info: { tasks: ["embed", "token_embed", "classify"], classes: 3, labels: ["a", "b", "c"] } });
  const http = await createHttp({
    routes,
    services: servicesOf(setting),
    gate: gateOf({ key: principalOf({ id: "k", tenant: "t", role: "user" }) }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  return http;
}

async function check(http: Http, path: string, body: unknown): Promise<number> {
  const answer = await http.inject("public", {
    method: "POST",
    url: path,
    headers: { authorization: "Bearer key", "content-type": "application/json" },
    payload: JSON.stringify(body) ?? "",
  });
  const told = `${answer.statusCode} ${answer.body} for ${path} ${JSON.stringify(body)}`;
  if (answer.statusCode === 200) return 200;
  // 501: what is known and not done here, such as images.
  assert.ok((answer.statusCode >= 400 && answer.statusCode < 500) || answer.statusCode === 501, told);
  const { error } = ErrorReply.parse(answer.json());
  assert.ok(typeof error === "object" && error.message.length > 0 && error.message.length <= 1000, told);
  if (path.startsWith("/v2/")) assert.partialDeepStrictEqual(answer.json(), { message: error.message });
  return answer.statusCode;
}

for (const [what, bodies, generates] of [
  ["numbers", WHOLE, false],
  ["labels", GENERATIVE, true],
] as const) {
  test(`${what}: a strange value in each place`, async (t) => {
    const http = await server(t, generates);
    const seen = new Set<number>();
    for (const [path, body] of bodies) {
      assert.equal(await check(http, path, body), 200, path);
      for (const place of pathsOf(body))
        for (const value of STRANGE) seen.add(await check(http, path, put(body, place, value)));
    }
    assert.ok([200, 400, 404].every((status) => seen.has(status)));
  });

  test(`${what}: any value in any place`, async (t) => {
    const http = await server(t, generates);
    const places = fc.constantFrom(
      ...bodies.flatMap(([path, body]) => pathsOf(body).map((at) => ({ path, body, at }))),
    );
    await fc.assert(
      fc.asyncProperty(places, fc.jsonValue(), async ({ path, body, at }, value) => {
        await check(http, path, put(body, at, value));
      }),
      { numRuns: 500 },
    );
  });
}
