/**
 * What the policy is said to allow is what the server does: every verdict of explain, beside the real corridor's answer,
 * for every route, on both listeners, from callers of every kind.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Principal, ROLES, type Role } from "#core/principal.ts";
import { createHttp, type Http } from "#http/server.ts";
import { type Asker, explain, type Listener, type Question, type RouteFacts } from "#policy/explain.ts";
import { TenantRules, withinTenants } from "#policy/file/tenants.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, grant, says } from "#serving/_fixture.ts";
import { servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";

const facts = routes as readonly RouteFacts[];
const tenants = new TenantRules({
  gone: { disabled: true },
  narrow: { models: ["demo-alias"], adapters: ["sql"] },
  closed: { models: [], adapters: [] },
});
/** As `inject` has it. */
const ADDRESS = "127.0.0.1";

const ID = "some_id";

const principals: readonly Principal[] = [
  ...(Object.keys(ROLES) as Role[]).map((role) => principalOf({ id: `role-${role}`, tenant: "t", role })),
  principalOf({ id: "operators-admin", tenant: "default", role: "admin" }),
  principalOf({ id: "operators-user", tenant: "default", role: "user" }),
  principalOf({ id: "narrowed", tenant: "t", role: "admin", scopes: ["models:read"] }),
  principalOf({ id: "here", tenant: "t", role: "admin", reach: { networks: ["127.0.0.0/8"] } }),
  principalOf({ id: "elsewhere", tenant: "t", role: "admin", reach: { networks: ["10.0.0.0/8"] } }),
  principalOf({ id: "gone", tenant: "gone", role: "admin" }),
  principalOf({ id: "narrow", tenant: "narrow", role: "user", reach: { models: ["demo*"] } }),
  principalOf({ id: "closed", tenant: "closed", role: "user" }),
  principalOf({ id: "listed", tenant: "t", role: "user", reach: { models: ["x*"], adapters: ["*"] } }),
];

async function server(t: TestContext): Promise<Http> {
  const known = new Map(principals.map((principal) => [principal.id, principal]));
  const setting = fixture({ reply: says("x") });
  await setting.adapters.load(grant("lora:write", "default"), { name: "sql", path: "/a", inPlace: false });
  const http = await createHttp({
    routes,
    services: servicesOf(setting),
    gate: plainGate(withinTenants(identifyBy({ keys: (key) => known.get(key) }), () => tenants)),
    dialect: openai,
  });
  t.after(() => http.close(0));
  return http;
}

interface Caller {
  readonly asker: Asker;
  readonly headers: Readonly<Record<string, string>>;
}
const callers: readonly Caller[] = [
  { asker: { kind: "nobody" }, headers: {} },
  { asker: { kind: "refused", status: 401, says: "unknown" }, headers: { authorization: "Bearer unknown" } },
  ...principals.map((principal) => ({
    asker: { kind: "known" as const, principal, says: principal.id },
    headers: { authorization: `Bearer ${principal.id}` },
  })),
];

async function compare(http: Http, question: Question, { asker, headers }: Caller, body?: object): Promise<boolean> {
  const { listener, method, path } = question;
  const verdict = explain({ ...question, address: ADDRESS }, asker, facts, tenants);
  const answer = await http.inject(listener, {
    method: method as "GET",
    url: path,
    headers,
    ...(body === undefined ? {} : { payload: body }),
  });
  const told = `${listener} ${method} ${path} as ${JSON.stringify(headers)}: ${answer.statusCode}, ${JSON.stringify(verdict)}`;
  // What was let in may still fail by its body: no denial of the policy looks like that.
  // Nor does an id that nothing has, or a caller with no model at all: a path that no route has says "Not Found".
  const missing = answer.statusCode === 404 && !/"Not Found"/.test(answer.body);
  if (verdict.allowed) assert.ok(missing || ![401, 403, 404, 405].includes(answer.statusCode), told);
  else assert.equal(answer.statusCode, verdict.status, told);
  return verdict.allowed;
}

test("routes, listeners, methods and unknown paths", async (t) => {
  const http = await server(t);
  const counts = { allowed: 0, denied: 0 };
  const paths = [
    ...new Set(routes.map(({ path }) => path.replace(/\{.*\}/, ID))),
    "/elsewhere",
    "/v1/models/",
    "/V1/models",
  ];
  for (const listener of ["public", "ops"] satisfies Listener[])
    for (const method of ["GET", "POST", "PUT", "DELETE"])
      for (const path of paths)
        for (const caller of callers)
          counts[(await compare(http, { method, path, listener }, caller)) ? "allowed" : "denied"]++;
  assert.ok(counts.allowed > 100 && counts.denied > 1000, JSON.stringify(counts));
});

test("models and adapters, by the caller's lists and its tenant's", async (t) => {
  const http = await server(t);
  const seen = new Set<string>();
  for (const caller of callers)
    for (const [what, name] of [
      ["model", "demo"],
      ["model", "demo-alias"],
      ["adapter", "sql"],
    ] as const) {
      const question = { method: "POST", path: "/v1/completions", listener: "public", [what]: name } as const;
      const body = { model: name, prompt: "a", max_tokens: 1 };
      seen.add(`${what} ${await compare(http, question, caller, body)}`);
    }
  assert.equal(seen.size, 4, "both outcomes of both");
});
