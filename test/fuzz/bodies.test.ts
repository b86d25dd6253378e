/**
 * Bodies made from the routes' own schemas, right and almost right, to every declared route over the scripted model:
 * each is answered, none by a bug's answer, and the model works as before.
 *
 * CASTELLAN_FUZZ_ROUNDS (bodies a route; 30) and CASTELLAN_FUZZ_SEED change a run; a failure says its seed.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { z } from "zod";
import { createHttp, type Http } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { pairTemplate } from "#prompt/pair-template.ts";
import { modelTemplate } from "#prompt/template.ts";
import { routes } from "#routes/index.ts";
import { type Fixture, fixture, says } from "#serving/_fixture.ts";
import { poolFixture } from "#serving/_fixture-pooling.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";
import { Dice, generate, type JsonSchema, mutate, spoil } from "./generator.ts";

const ROUNDS = Number(process.env["CASTELLAN_FUZZ_ROUNDS"] ?? 30);
const SEED = Number(process.env["CASTELLAN_FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

type Route = (typeof routes)[number];

async function server(
  t: TestContext,
  setting: Fixture = fixture({ reply: says("x") }),
): Promise<{ http: Http; setting: Fixture }> {
  const http = await createHttp({
    routes,
    services: servicesOf(setting),
    gate: gateOf({ key: principalOf({ id: "k", tenant: "default", role: "admin" }) }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  return { http, setting };
}

const schemaOf = (schema: z.ZodType): JsonSchema =>
  z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }) as JsonSchema;

/** The payload, and whether nothing was changed in what the schema says. */
function payloadOf(dice: Dice, route: Route): string | undefined {
  if (route.body === undefined) return undefined;
  let value = generate(dice, schemaOf(route.body));
  if (dice.chance(0.6)) for (let i = dice.below(3); i >= 0; i--) value = mutate(dice, value);
  const text = JSON.stringify(value) ?? "";
  return dice.chance(0.05) ? spoil(dice, text) : text;
}

function urlOf(dice: Dice, { path, query }: Route): string {
  const target = path.replace(/\{\w+\}/, dice.pick(["a", "resp_1", "x".repeat(128), "-"]));
  if (query === undefined || dice.chance(0.3)) return target;
  const fields = generate(dice, schemaOf(query)) as Readonly<Record<string, unknown>>;
  return `${target}?${new URLSearchParams(Object.entries(fields).map(([name, value]): [string, string] => [name, String(value)]))}`;
}

async function send(http: Http, route: Route, dice: Dice): Promise<{ status: number; told: string }> {
  const payload = payloadOf(dice, route);
  const url = urlOf(dice, route);
  const { statusCode, body } = await http.inject(route.plane === "ops" ? "ops" : "public", {
    method: route.method,
    url,
    headers: { authorization: "Bearer key", ...(payload === undefined ? {} : { "content-type": "application/json" }) },
    ...(payload === undefined ? {} : { payload }),
  });
  return {
    status: statusCode,
    told: `${route.method} ${url} ${payload?.slice(0, 2000)} → ${statusCode} ${body.slice(0, 500)}`,
  };
}

test("no body, right or wrong, brings a bug to light or stops the server", async (t) => {
  const { http, setting } = await server(t);
  const statuses = new Set<number>();
  for (const [at, route] of routes.entries()) {
    for (let round = 0; round < (route.body === undefined && route.query === undefined ? 1 : ROUNDS); round++) {
      const dice = new Dice(SEED + at * 1_000_003 + round);
      const { status, told } = await send(http, route, dice);
      statuses.add(status);
      assert.ok(status < 500 || status === 501, `CASTELLAN_FUZZ_SEED=${SEED}: ${told}`);
    }
    assert.equal(setting.backend.open, 0, `CASTELLAN_FUZZ_SEED=${SEED}: ${route.path} left a sequence behind`);
  }
  assert.ok(statuses.has(200) && statuses.has(400), [...statuses].join());
  const alive = await http.inject("public", {
    method: "POST",
    url: "/v1/chat/completions",
    headers: { authorization: "Bearer key", "content-type": "application/json" },
    payload: JSON.stringify({ messages: [{ role: "user", content: "hi" }], max_tokens: 4 }),
  });
  assert.equal(alive.statusCode, 200, alive.body);
});

const SCORER = { tasks: ["classify", "score"], type: "rank", classes: 1 } as const;
const CLASSIFIER = { tasks: ["classify"], type: "rank", classes: 3, labels: ["a", "b", "c"] } as const;
const template = modelTemplate("{% for m in messages %}{{ m.content }}{% endfor %}{{ tone }}");
const POOLING = routes.filter(
  ({ access, path }) => (access.kind === "key" && access.scope === "embeddings") || path === "/invocations",
);

/** Models that give numbers, and the routes whose work each of them does. */
const POOLERS = [
  ["vectors", {}, /embed|pooling|score$|rerank/],
  ["scores", { info: SCORER }, /classify|pooling|score$|rerank/],
  ["classes", { info: CLASSIFIER }, /classify|pooling/],
] as const;

for (const [what, script, able] of POOLERS) {
  const pairs = pairTemplate("<s>{query}<|>{document}</s>");
  const pooler = () => poolFixture({ window: 64, ...script }, { template, ...(what === "scores" ? { pairs } : {}) });

  test(`a model of ${what}: no body brings a bug to light, and nothing is left of any`, async (t) => {
    const setting = pooler();
    const { http } = await server(t, setting);
    for (const [at, route] of POOLING.entries()) {
      for (let round = 0; round < ROUNDS; round++) {
        const { status, told } = await send(http, route, new Dice(SEED + at * 1_000_003 + round));
        assert.ok(status < 500 || status === 501, `CASTELLAN_FUZZ_SEED=${SEED}: ${told}`);
      }
      assert.equal(setting.pooling.inputs, 0, `CASTELLAN_FUZZ_SEED=${SEED}: ${route.path} left inputs behind`);
    }
  });

  test(`a model of ${what}: the bodies reach its work on every route that it can do`, async (t) => {
    const setting = pooler();
    const { http } = await server(t, setting);
    const unreached: string[] = [];
    for (const route of POOLING.filter(({ path }) => able.test(path) && path !== "/generative_scoring")) {
      const before = setting.pooling.pools.length;
      for (let seed = 0; seed < 100; seed++) await send(http, route, new Dice(seed));
      if (setting.pooling.pools.length - before < 3) unreached.push(route.path);
    }
    assert.deepEqual(unreached, []);
  });
}

test("a seed gives the same bodies again, and the generator makes bodies that are taken", async (t) => {
  const { http } = await server(t);
  const chat = routes.find(({ path }) => path === "/v1/completions");
  assert.ok(chat?.body !== undefined);
  const bodies = (seed: number) => Array.from({ length: 20 }, (_, i) => payloadOf(new Dice(seed + i), chat));
  assert.deepEqual(bodies(1), bodies(1));
  assert.notDeepEqual(bodies(1), bodies(1000));
  const statuses = new Map<number, number>();
  for (let i = 0; i < 200; i++) {
    const { status } = await send(http, chat, new Dice(i));
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  assert.ok((statuses.get(200) ?? 0) >= 5 && (statuses.get(400) ?? 0) >= 5, JSON.stringify([...statuses]));
});
