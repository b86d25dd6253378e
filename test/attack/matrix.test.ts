/**
 * Every real route, on both listeners, from every kind of caller: nobody, a wrong key, each role, and spelled in every
 * way. Only the literal open list answers without a key; a route of the other plane does not exist, whoever asks.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { OPERATOR_TENANT, ROLES, type Role } from "#core/principal.ts";
import type { ListenerPlane } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { TenantRules, withinTenants } from "#policy/file/tenants.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify } from "#policy/identify.ts";
import { type KeyEntry, KeySet, keyDigest, mintKeyId } from "#policy/keys.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture, says } from "#serving/_fixture.ts";
import { METHODS, spellings, strangeSegments, targetOf } from "#test/attack/spellings.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { exchange, message, statusOf } from "#test/http/harness.ts";
import { openai } from "#wire/openai/dialect.ts";

/** What answers anybody, and where. */
const OPEN: Readonly<Record<ListenerPlane, readonly string[]>> = {
  public: ["GET /health", "GET /ping", "POST /ping"],
  ops: ["GET /health"],
};
const PLANES: readonly ListenerPlane[] = ["public", "ops"];
const ROLE_NAMES = Object.keys(ROLES) as Role[];
const ELSEWHERE = ["/", "/v1", "/docs", "/redoc", "/nowhere", "/.env"];

interface Doors {
  readonly port: Readonly<Record<ListenerPlane, number>>;
  /** Answers of routes with a key that were no refusal. */
  readonly handled: () => number;
}

async function doors(t: TestContext): Promise<Doors> {
  const principals = Object.fromEntries(
    ROLE_NAMES.map((role) => [role, principalOf({ id: `key_${role}`, tenant: "default", role })]),
  );
  let handled = 0;
  const http = await createHttp({
    routes,
    services: servicesOf(fixture({ reply: says("x") })),
    gate: gateOf(principals),
    dialect: openai,
    observer: ({ principal, status }) => {
      if (principal !== undefined && status < 400) handled++;
    },
  });
  t.after(() => http.close(0));
  const listen = async (plane: ListenerPlane): Promise<number> => {
    const address = await http.listen(plane, { host: "127.0.0.1", port: 0 });
    return "port" in address ? address.port : 0;
  };
  return { port: { public: await listen("public"), ops: await listen("ops") }, handled: () => handled };
}

const bearer = (token: string): string => `Authorization: Bearer ${token}`;
const paths = [...new Set(routes.map(({ path }) => path)), ...ELSEWHERE];
const exists = (plane: ListenerPlane, path: string): boolean =>
  routes.some((route) => route.path === path && (route.plane === plane || route.plane === "both"));

test("without a key, and with a wrong one, every method on every path is 401, but for the open list", async (t) => {
  const { port, handled } = await doors(t);
  for (const plane of PLANES) {
    for (const path of paths) {
      for (const method of METHODS) {
        const open = OPEN[plane].includes(`${method} ${path}`);
        for (const headers of [[], [bearer("wrong")], [bearer("")], ["x-api-key: admin"]]) {
          const status = statusOf(await exchange(port[plane], message(`${method} ${targetOf(path)}`, headers)));
          assert.equal(status, open ? 200 : 401, `${plane} ${method} ${path} ${headers}`);
        }
      }
    }
  }
  assert.equal(handled(), 0);
});

test("no spelling of any route is handled, by nobody and by no key; nor is a method that it has not", async (t) => {
  const { port, handled } = await doors(t);
  for (const plane of PLANES) {
    for (const { method, path, access } of routes) {
      if (access.kind === "open") continue;
      const strange = path.includes("{") ? strangeSegments(path) : [];
      for (const target of [...spellings(targetOf(path)), ...strange]) {
        const nobody = statusOf(await exchange(port[plane], message(`${method} ${target}`)));
        assert.ok([400, 401].includes(nobody), `${plane} ${method} ${target}: ${nobody}`);
        const admin = statusOf(await exchange(port[plane], message(`${method} ${target}`, [bearer("admin")])));
        assert.ok([400, 404, 405].includes(admin), `${plane} ${method} ${target}: ${admin}`);
      }
    }
    for (const path of paths) {
      const declared = routes.filter((route) => route.path === path && [plane, "both"].includes(route.plane));
      for (const method of METHODS.filter((one) => !declared.some((route) => route.method === one))) {
        const status = statusOf(await exchange(port[plane], message(`${method} ${targetOf(path)}`, [bearer("admin")])));
        assert.equal(status, exists(plane, path) ? 405 : 404, `${plane} ${method} ${path}`);
      }
    }
  }
  assert.equal(handled(), 0);
});

test("a role without the scope gets 403 before its body is looked at; the other plane's routes are 404 for all", async (t) => {
  const { port } = await doors(t);
  for (const plane of PLANES) {
    for (const { method, path, access, plane: own, query } of routes) {
      if (access.kind === "open") continue;
      for (const role of ROLE_NAMES) {
        const here = own === plane || own === "both";
        const scopes: readonly string[] = ROLES[role];
        // A body that no route takes, announced and cut short: who may not call is not waited for.
        const headers = [bearer(role), "Content-Type: text/plain"];
        const answer = await exchange(port[plane], message(`${method} ${targetOf(path)}`, headers));
        const status = statusOf(answer);
        const label = `${plane} ${role} ${method} ${path}: ${status}`;
        if (!here) assert.ok([404, 405].includes(status) && (status === 404) === !exists(plane, path), label);
        else if (!scopes.includes(access.scope)) assert.equal(status, 403, label);
        // The route is reached, and has no such thing.
        else if (path.includes("{")) assert.ok(status === 404 && answer.includes("'id_1' not found"), label);
        // Reached as well: declared, and nothing stands behind it yet.
        else if (["/v1/realtime", "/metrics/upstreams"].includes(path)) assert.equal(status, 501, label);
        // What a query has to say is missing as much as a body is.
        else assert.ok(status === 200 || (status === 400 && (method === "POST" || query !== undefined)), label);
      }
    }
  }
});

test("a key that has ended, was taken away, is not valid yet or comes from elsewhere opens no route; nor does its tenant's end", async (t) => {
  const pepper = new Uint8Array(32);
  const set = new KeySet(pepper);
  const admin = principalOf({ id: "", tenant: OPERATOR_TENANT, role: "admin" });
  const put = (name: string, more: Partial<KeyEntry> = {}): void =>
    set.put({ id: mintKeyId(), digest: keyDigest(pepper, name), profile: admin, ...more });
  put("live");
  put("expired", { expiresAt: Date.now() - 1 });
  put("early", { notBefore: Date.now() + 3_600_000 });
  put("disabled", { state: "disabled" });
  put("deleted", { state: "deleted" });
  put("elsewhere", { profile: { ...admin, reach: { networks: ["192.0.2.0/24"] } } });
  put("gone", { profile: { ...admin, tenant: "gone" } });
  const rules = new TenantRules({ gone: { disabled: true } });
  const http = await createHttp({
    routes,
    services: servicesOf(fixture({ reply: says("x") })),
    gate: plainGate(withinTenants(createIdentify(set), () => rules)),
    dialect: openai,
  });
  t.after(() => http.close(0));
  for (const plane of PLANES) {
    for (const { method, path, access } of routes) {
      if (access.kind === "open") continue;
      const answer = async (key: string) =>
        http.inject(plane, { method, url: path, headers: { authorization: `Bearer ${key}` } });
      const nobody = await answer("nobody's");
      for (const key of ["expired", "early", "disabled", "deleted", "elsewhere", "gone"]) {
        const { statusCode, body } = await answer(key);
        assert.deepEqual([statusCode, body], [401, nobody.body], `${plane} ${key} ${method} ${path}`);
      }
      assert.notEqual((await answer("live")).statusCode, 401, `${plane} ${method} ${path}`);
    }
  }
});
