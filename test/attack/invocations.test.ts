/**
 * Wall: T90. /invocations is no way around the routes that it leads to: their scopes, schemas, caps and records hold.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { Principal, Scope } from "#core/principal.ts";
import { key, operatorKey } from "#http/access.ts";
import { json } from "#http/reply.ts";
import type { AnyRoute, RouteSpec } from "#http/route.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { Gate, Outcome } from "#policy/gate.ts";
import { principalOf } from "#policy/roles.ts";
import { route } from "#routes/_services.ts";
import { routes, type Services } from "#routes/index.ts";
import { invocations } from "#routes/invocations.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";

const user = [{ role: "user", content: "hi" }];
const CHAT = { messages: user, max_tokens: 4 };

function holder(...scopes: Scope[]): Principal {
  return { ...principalOf({ id: `key_${scopes.join("_")}`, tenant: "t", role: "admin" }), scopes: new Set(scopes) };
}

interface Door {
  readonly http: Http;
  readonly setting: Fixture;
  readonly outcomes: Outcome[];
}

async function door(t: TestContext, changes: Parameters<typeof fixture> = [{ reply: says("yes") }]): Promise<Door> {
  const setting = fixture(...changes);
  const outcomes: Outcome[] = [];
  const gate = gateOf({
    tokenize: holder("tokenize"),
    embeddings: holder("embeddings"),
    inference: holder("inference"),
    both: holder("inference", "embeddings"),
    narrow: { ...holder("inference"), caps: { n: 1 }, reach: { models: ["other"] } },
    capped: { ...holder("inference"), caps: { n: 1 } },
  });
  const recorded: Gate = {
    identify: gate.identify,
    open: (call) => ({ ...gate.open(call), record: (outcome) => void outcomes.push(outcome) }),
  };
  const http = await createHttp({ routes, services: servicesOf(setting), gate: recorded, dialect: openai });
  t.after(() => http.close(0));
  return { http, setting, outcomes };
}

async function ask({ http }: Door, token: string, body: unknown, url = "/invocations", more = {}) {
  return http.inject("public", {
    method: "POST",
    url,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...more },
    payload: typeof body === "string" ? body : JSON.stringify(body),
  });
}

test("each body goes where vLLM sends it, and is answered as there", async (t) => {
  const at = await door(t);
  const same = async (body: object, path: string): Promise<void> => {
    const [here, there] = [await ask(at, "both", body), await ask(at, "both", body, path)];
    const bare = (text: string): string => text.replaceAll(/"(id|created)":("[^"]*"|\d+)/g, "");
    assert.equal(here.statusCode, there.statusCode, path);
    assert.equal(bare(here.body), bare(there.body), path);
    assert.equal(here.headers["content-type"], there.headers["content-type"], path);
    assert.deepEqual(at.outcomes.at(-2)?.target, path);
    assert.equal(at.outcomes.at(-1)?.target, undefined);
  };
  await same(CHAT, "/v1/chat/completions");
  await same({ ...CHAT, prompt: "both" }, "/v1/chat/completions");
  await same({ ...CHAT, stream: true }, "/v1/chat/completions");
  await same({ ...CHAT, n: 17, temperature: 1 }, "/v1/chat/completions");
  await same({ messages: "no list" }, "/v1/chat/completions");
  await same({ prompt: "a", max_tokens: 2 }, "/v1/completions");
  await same({ prompt: "a", max_tokens: "2" }, "/v1/completions");
});

test("what fits nothing is told what would, and starts no work", async (t) => {
  const at = await door(t);
  for (const body of [{}, { input: "a" }, { query: "a", documents: ["b"] }, { messages: null }]) {
    const { statusCode, body: text } = await ask(at, "both", body);
    assert.equal(statusCode, 400);
    assert.match(text, /Cannot find suitable handler for request. Expected one of: chat, completion"/);
  }
  for (const body of [
    "",
    "{",
    "[]",
    "null",
    '"chat"',
    '{"messages":[],"messages":[]}',
    '{"__proto__":{"messages":[]}}',
  ])
    assert.equal((await ask(at, "both", body)).statusCode, 400, body);
  assert.equal((await ask(at, "both", { ...CHAT, model: "nobody's" })).statusCode, 404);
  assert.equal((await ask(at, "both", { ...CHAT, model: 5 })).statusCode, 400);
  assert.equal(at.setting.backend.requests.length, 0);
});

test("a model that pools: embeddings before classes, and the scope of what answers is asked for", async (t) => {
  const pooling = {
    tasks: ["embed", "classify"],
    type: "MEAN",
    embeddingSize: 4,
    classes: 0,
    labels: [],
    defaults: {},
  } as never;
  const at = await door(t, [{ model: { pooling } }]);
  for (const [body, target] of [
    [{ input: "a" }, "/v1/embeddings"],
    [{ messages: user }, "/v1/embeddings"],
    [{ query: "a", documents: ["b"] }, "/rerank"],
    [{ text_1: "a", text_2: "b" }, "/score"],
    [{ queries: "a", items: ["b"] }, "/score"],
    [{ data: "a" }, "/pooling"],
  ] as const) {
    const { statusCode, body: text } = await ask(at, "inference", body);
    assert.equal(statusCode, 403, text);
    assert.match(text, /lacks the scope embeddings/);
    assert.equal(at.outcomes.at(-1)?.target, target);
    assert.equal(at.outcomes.at(-1)?.fault, "forbidden");
    // Let in, it comes to the model, which is scripted to refuse.
    assert.equal((await ask(at, "both", body)).statusCode, 400);
    assert.equal((await ask(at, "embeddings", body)).statusCode, 403);
  }
  assert.equal(at.setting.backend.requests.length, 0);
});

test("a key with tokenize alone, or another's model, reaches no chat through it, however it is written", async (t) => {
  const at = await door(t);
  const bodies = [CHAT, { ...CHAT, model: "demo" }, { prompt: "a" }, { ...CHAT, scope: "inference" }, "", "{"];
  for (const token of ["tokenize", "embeddings"])
    for (const body of bodies)
      for (const path of ["/invocations", "/invocations?target=/tokenize", "/invocations?scope=tokenize"])
        for (const more of [{}, { "x-original-url": "/tokenize" }, { "x-amzn-sagemaker-target-model": "demo" }])
          assert.equal((await ask(at, token, body, path, more)).statusCode, 403, `${token} ${path}`);
  for (const path of ["/invocations/", "//invocations", "/Invocations", "/%69nvocations"])
    for (const token of ["tokenize", "both"]) assert.equal((await ask(at, token, CHAT, path)).statusCode, 404, path);
  assert.equal((await ask(at, "narrow", CHAT)).statusCode, 404);
  assert.equal((await ask(at, "narrow", { ...CHAT, model: "demo" })).statusCode, 404);
  assert.equal((await ask(at, "capped", { ...CHAT, n: 2, temperature: 1 })).statusCode, 400);
  assert.equal((await ask(at, "nobody", CHAT)).statusCode, 401);
  assert.equal(at.setting.backend.requests.length, 0);
});

const spec = {
  method: "POST",
  path: "/target",
  dialect: openai,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 1000, timeoutMs: 1000 },
  body: invocations.body,
  reply: [],
  audit: "metadata",
  doc: "",
  handler: () => json({}),
} as unknown as RouteSpec<Services, ReturnType<typeof key>, unknown, undefined>;

test("no server starts with a route that forwards under weaker terms", async () => {
  const starts = async (target: AnyRoute<Services>, own: object = {}): Promise<void> => {
    const from = route({ ...spec, path: "/from", forwardsTo: [target], ...own });
    const setting = { routes: [target, from], services: servicesOf(fixture()), gate: gateOf({}), dialect: openai };
    await (await createHttp(setting)).close(0);
  };
  await starts(route(spec));
  await starts(route({ ...spec, access: operatorKey("admin") }));
  const weaker: [RouteSpec<Services, ReturnType<typeof key>, unknown, undefined>, object][] = [
    [spec, { limits: { bodyBytes: 1001, timeoutMs: 1000 } }],
    [spec, { limits: { bodyBytes: 1000, timeoutMs: 1001 } }],
    [spec, { audit: "none" }],
    [spec, { access: { kind: "open", reason: "no" } }],
    [spec, { plane: "both" }],
    [{ ...spec, plane: "ops" }, {}],
    [{ ...spec, switchedBy: "serverDevMode" }, {}],
    [{ ...spec, dialect: { ...openai } }, {}],
    [{ ...spec, forwardsTo: [route(spec)] }, {}],
  ];
  for (const [target, own] of weaker) await assert.rejects(starts(route(target), own), /whose terms are not its own/);
  await assert.rejects(starts({ ...route(spec) }), /did not come from|whose terms/);
});

test("a route forwards to what it has declared, and no further", async (t) => {
  const target = route(spec);
  const stranger = route({ ...spec, path: "/stranger" });
  const from = (path: `/${string}`, to: AnyRoute<Services>) =>
    route({ ...spec, path, forwardsTo: [target], handler: () => ({ kind: "forward", to, body: {} }) });
  const admin = route({ ...spec, path: "/admin", access: operatorKey("inference") });
  const toAdmin = route({
    ...spec,
    path: "/to-admin",
    forwardsTo: [admin],
    handler: () => ({ kind: "forward", to: admin, body: {} }),
  });
  const all = [target, stranger, from("/ok", target), from("/bad", stranger), admin, toAdmin];
  const gate = gateOf({ key: holder("inference") });
  const http = await createHttp({ routes: all, services: servicesOf(fixture()), gate, dialect: openai });
  t.after(() => http.close(0));
  const at = { http, setting: fixture(), outcomes: [] };
  assert.equal((await ask(at, "key", {}, "/ok")).statusCode, 200);
  assert.equal((await ask(at, "key", {}, "/bad")).statusCode, 500);
  // Its principal is not of the operator's tenant: the target's declaration holds in whole.
  assert.equal((await ask(at, "key", {}, "/to-admin")).statusCode, 403);
});
