/**
 * Whatever stands in whatever place of a Messages body, the answer is a message or a 4xx in Anthropic's shape.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import fc from "fast-check";
import { createHttp, type Http } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, says } from "#serving/_fixture.ts";
import { pathsOf, put, STRANGE } from "#test/attack/places.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { anthropic } from "#wire/anthropic/dialect.ts";
import { MessageErrorReply } from "#wire/anthropic/replies.ts";

/** Every field, each kind of block. */
const WHOLE = {
  model: "demo",
  max_tokens: 4,
  system: [{ type: "text", text: "s", cache_control: { type: "ephemeral" } }],
  messages: [
    { role: "user", content: "hi" },
    {
      role: "assistant",
      content: [
        { type: "thinking", thinking: "hm", signature: "x" },
        { type: "redacted_thinking", data: "x" },
        { type: "text", text: "so" },
        { type: "tool_use", id: "t", name: "f", input: { a: 1 } },
      ],
    },
    {
      role: "user",
      content: [
        { type: "tool_result", tool_use_id: "t", is_error: true, content: [{ type: "text", text: "r" }] },
        { type: "text", text: "and" },
      ],
    },
    { role: "system", content: "more" },
  ],
  tools: [{ type: "custom", name: "f", description: "d", input_schema: { type: "object" }, strict: true }],
  tool_choice: { type: "tool", name: "f", disable_parallel_tool_use: true },
  thinking: { type: "enabled", budget_tokens: 2, display: "omitted" },
  output_config: { effort: "low", format: null },
  chat_template_kwargs: { a: 1 },
  metadata: { user_id: "u" },
  stop_sequences: ["x"],
  temperature: 1,
  top_p: 1,
  top_k: 1,
  service_tier: "auto",
  kv_transfer_params: {},
  mcp_servers: [],
  container: null,
};

async function server(t: TestContext): Promise<Http> {
  const http = await createHttp({
    routes,
    services: servicesOf(fixture({ reply: says("x"), model: { contextLength: 4096 } })),
    gate: gateOf({ key: principalOf({ id: "k", tenant: "t", role: "user" }) }),
    dialect: anthropic,
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
  const told = `${answer.statusCode} ${answer.body} for ${JSON.stringify(body)}`;
  if (answer.statusCode === 200) return 200;
  assert.ok(answer.statusCode >= 400 && answer.statusCode < 500, told);
  const { error } = MessageErrorReply.parse(answer.json());
  assert.ok(error.message.length > 0 && error.message.length <= 1000, told);
  return answer.statusCode;
}

const ROUTES = ["/v1/messages", "/v1/messages/count_tokens"];

test("a strange value in each place", async (t) => {
  const http = await server(t);
  const seen = new Set<number>();
  for (const path of ROUTES) {
    assert.equal(await check(http, path, WHOLE), 200);
    for (const place of pathsOf(WHOLE))
      for (const value of STRANGE) seen.add(await check(http, path, put(WHOLE, place, value)));
  }
  assert.deepEqual(seen, new Set([200, 400, 404]));
});

test("any value in any place, whole and streamed", async (t) => {
  const http = await server(t);
  const places = fc.constantFrom(...pathsOf(WHOLE));
  const blocks = fc.constantFrom(...WHOLE.messages.flatMap(({ content }) => content as unknown[]), ...WHOLE.tools);
  const values = fc.oneof(fc.jsonValue(), blocks);
  await fc.assert(
    fc.asyncProperty(places, values, fc.constantFrom(...ROUTES), fc.boolean(), async (place, value, path, stream) => {
      await check(http, path, put({ ...WHOLE, stream }, place, value));
    }),
    { numRuns: 500 },
  );
});
