import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import fastify from "fastify";
import { z } from "zod";
import { plainDialect } from "#test/http/harness.ts";
import { key, open } from "./access.ts";
import { checkRoutes, match, matchLiterally, registerRoutes } from "./registrar.ts";
import { json } from "./reply.ts";
import { type AnyRoute, defineRoute } from "./route.ts";

const declared = {
  method: "GET",
  path: "/v1/x",
  dialect: plainDialect("openai"),
  access: key("inference"),
  plane: "public",
  limits: { timeoutMs: 1000 },
  reply: [],
  audit: "none",
  doc: "",
  handler: () => json({}),
} as const;

/** A route with a declaration that TypeScript would refuse, or not. */
function made(change: Record<string, unknown>): AnyRoute<unknown> {
  return defineRoute<unknown>()({ ...declared, ...change } as never);
}

test("boot refuses what defineRoute did not make", () => {
  checkRoutes([made({})]);
  for (const foreign of [{ ...declared }, { ...made({}) }, null, "GET /v1/x"]) {
    assert.throws(() => checkRoutes([foreign as never]), /did not come from defineRoute/);
  }
});

test("boot refuses declarations that say too little", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ access: undefined }, /who may call/],
    [{ access: { kind: "key" } }, /who may call/],
    [{ access: { kind: "key", scope: "root" } }, /who may call/],
    [{ access: { kind: "public" } }, /who may call/],
    [{ access: open(" ") }, /no reason/],
    [{ plane: "all" }, /plane/],
    [{ limits: {} }, /time limit/],
    [{ limits: { timeoutMs: Number.NaN } }, /time limit/],
    [{ body: z.object({}) }, /bodyBytes/],
    [{ limits: { timeoutMs: 1, bodyBytes: 5 } }, /body schema/],
    ...[
      "/",
      "/v1/",
      "//x",
      "/v1/:id",
      "/v1/*",
      "/v1/a b",
      "/v1/%41",
      "/../x",
      "/v1?x",
      "v1",
      "/{id}",
      "/v1/{}",
      "/v1/{Id}",
      "/v1/{id}x",
      "/v1/x{id}",
      "/v1/{id}/{other}",
      "/v1/{id}/",
    ].map((path): [Record<string, unknown>, RegExp] => [{ path }, /not literal/]),
  ];
  for (const [change, says] of cases) assert.throws(() => checkRoutes([made(change)]), says, JSON.stringify(change));
  assert.throws(() => checkRoutes([made({}), made({ plane: "ops" })]), /GET \/v1\/x is declared twice/);
  checkRoutes([made({}), made({ method: "POST" })]);
});

test("the router takes a plane's routes, and none that comes another way", async () => {
  const app = fastify();
  const table = registerRoutes(
    app,
    [made({}), made({ path: "/both", plane: "both" }), made({ path: "/ops", plane: "ops" })],
    "public",
  );
  assert.deepEqual([...table.paths.keys()], ["/v1/x", "/both"]);
  assert.throws(() => app.get("/backdoor", () => "x"), /GET \/backdoor did not come from defineRoute/);
  assert.throws(
    () => app.get("/backdoor", { config: { castellan: { ...declared } } as never }, () => "x"),
    /did not come/,
  );
  await app.close();
});

test("the router's finding counts only where the target is the path, byte for byte", async () => {
  const app = fastify();
  const route = made({});
  const table = registerRoutes(app, [route], "public");
  const config = { castellan: route };
  for (const target of ["/v1/x", "/v1/x?", "/v1/x?a=/b"]) assert.equal(match(table, config, target).kind, "route");
  for (const target of ["/v1/%78", "//v1/x", "http://h/v1/x", "/v1/X", "/v1/x/", "/v1/x#", ""])
    assert.equal(match(table, config, target).kind, "unknown", target);
  const other = match(table, undefined, "/v1/x");
  assert.ok(other.kind === "other-method" && other.allow === "GET");
  await app.close();
});

test("a path may have one segment that is a parameter, and no target is of two paths", () => {
  checkRoutes([made({ path: "/v1/{id}" }), made({ path: "/v1/{id}", method: "DELETE" }), made({ path: "/v1/{id}/x" })]);
  const meeting: [string, string][] = [
    ["/v1/{id}", "/v1/x"],
    ["/v1/{id}", "/v1/{other}"],
    ["/v1/{id}/stop", "/v1/x/stop"],
    ["/v1/{id}/stop", "/v1/x/{other}"],
  ];
  for (const [path, other] of meeting)
    assert.throws(() => checkRoutes([made({ path }), made({ path: other, method: "PUT" })]), /meet$/, path);
  // A dot cannot stand in a parameter.
  checkRoutes([made({ path: "/v1/{id}" }), made({ path: "/v1/x.json" })]);
});

test("a parameter is one segment of letters, digits, _ and -, as bytes", async () => {
  const app = fastify({ routerOptions: { maxParamLength: 128 } });
  const one = made({ path: "/v1/things/{id}" });
  const stop = made({ path: "/v1/things/{id}/stop", method: "POST" });
  const table = registerRoutes(app, [one, stop], "public");
  const at = (target: string) => match(table, { castellan: one }, target);
  for (const id of ["a", "resp_0-Z", "stop", "a".repeat(128)]) {
    const matched = at(`/v1/things/${id}?stream=true`);
    assert.ok(matched.kind === "route", id);
    assert.deepEqual(matched.params, { id });
  }
  const strange = [
    "",
    "a.b",
    ".",
    "..",
    "a%2fb",
    "%61",
    "a/b",
    "a/",
    "/a",
    "a;b",
    "a b",
    "a+b",
    "a~",
    "ä",
    "a\0",
    "a\n",
  ];
  for (const id of [...strange, "{id}", ":id", "*", "a".repeat(129)])
    assert.equal(at(`/v1/things/${id}`).kind, "unknown", id);
  const stopped = match(table, { castellan: stop }, "/v1/things/a/stop");
  assert.ok(stopped.kind === "route" && stopped.params["id"] === "a");
  for (const target of ["/v1/things//stop", "/v1/things/stop/", "/v1/things/a/b/stop", "/v1/things/a/Stop"])
    assert.equal(match(table, { castellan: stop }, target).kind, "unknown", target);
  // The router's finding is not believed where the bytes say another path.
  assert.equal(match(table, { castellan: one }, "/v1/things/a/stop").kind, "other-method");
  const other = match(table, undefined, "/v1/things/a");
  assert.ok(other.kind === "other-method" && other.allow === "GET");
  await app.close();
});

test("what is found letter by letter is what the router finds, and never more", async (t) => {
  const app = fastify({ routerOptions: { caseSensitive: true } });
  t.after(() => app.close());
  const routes = [
    made({}),
    made({ method: "POST" }),
    made({ path: "/v1/y/{id}" }),
    made({ path: "/v1/ops", plane: "ops" }),
  ];
  const table = registerRoutes(app, routes, "public");
  const pieces = [
    "/v1/x",
    "/v1/y/{id}",
    "/v1/y/a",
    "/v1/ops",
    "/V1/x",
    "/",
    "?a=/v1/x",
    "?",
    "%78",
    "..",
    "#",
    "{id}",
    "//v1/x",
  ];
  const strange = fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 3 }).map((some) => some.join(""));
  const declaredOnce = fc.constantFrom("/v1/x", "/v1/x?", "/v1/x?a=/v1/x");
  const target = fc.oneof(strange, declaredOnce);
  let literal = 0;
  fc.assert(
    fc.property(fc.constantFrom("GET", "POST", "HEAD", "get", "DELETE"), target, (method, path) => {
      const found = matchLiterally(table, method, path);
      if (found === undefined) return;
      literal++;
      assert.ok(found.kind === "route" && found.route.method === method);
      assert.deepEqual(found, match(table, { castellan: found.route }, path));
    }),
    { numRuns: 2000 },
  );
  assert.ok(literal > 200, `${literal} were found`);
  assert.equal(matchLiterally(table, "GET", "/v1/y/{id}"), undefined);
  assert.equal(matchLiterally(table, "GET", "/v1/ops"), undefined, "the other plane's");
});
