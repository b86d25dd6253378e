/**
 * GET /openapi.json: each listener tells its own routes, to who may ask.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createHttp } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { openai } from "#wire/openai/dialect.ts";

interface Operation {
  readonly "x-scope"?: string;
  readonly requestBody?: { readonly content: Readonly<Record<string, unknown>> };
}
interface Document {
  readonly openapi: string;
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
}

test("each listener tells its own routes, to who may ask", async (t) => {
  const user = principalOf({ id: "k", tenant: "t", role: "user" });
  const http = await createHttp({
    routes,
    services: servicesOf(fixture()),
    gate: gateOf({ key: user, narrow: { ...user, scopes: new Set(["inference"] as const) } }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  const ask = async (plane: "public" | "ops", token: string) =>
    http.inject(plane, { url: "/openapi.json", headers: { authorization: `Bearer ${token}` } });
  for (const plane of ["public", "ops"] as const) {
    assert.equal((await ask(plane, "nobody")).statusCode, 401);
    assert.equal((await ask(plane, "narrow")).statusCode, 403);
    const answer = await ask(plane, "key");
    assert.equal(answer.statusCode, 200);
    assert.match(String(answer.headers["content-type"]), /^application\/json/);
    const { paths, openapi } = answer.json() as Document;
    assert.equal(openapi, "3.1.0");
    const told = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const own = routes.filter((route) => route.plane === plane || route.plane === "both");
    assert.deepEqual(told.sort(), own.map(({ method, path }) => `${method} ${path}`).sort());
  }
  const { paths } = (await ask("public", "key")).json() as Document;
  assert.equal(paths["/v1/chat/completions"]?.["post"]?.["x-scope"], "inference");
  assert.deepEqual(Object.keys(paths["/v1/audio/transcriptions"]?.["post"]?.requestBody?.content ?? {}), [
    "multipart/form-data",
  ]);
});
