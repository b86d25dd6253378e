import assert from "node:assert/strict";
import { test } from "node:test";
import fastify from "fastify";
import { z } from "zod";
import { plainDialect } from "#test/http/harness.ts";
import { key, open } from "./access.ts";
import { checkRoutes, match, registerRoutes } from "./registrar.ts";
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
    ...["/", "/v1/", "//x", "/v1/:id", "/v1/*", "/v1/a b", "/v1/%41", "/../x", "/v1?x", "v1"].map(
      (path): [Record<string, unknown>, RegExp] => [{ path }, /not literal/],
    ),
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
  assert.deepEqual([...table.keys()], ["/v1/x", "/both"]);
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
