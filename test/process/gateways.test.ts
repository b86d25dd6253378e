/**
 * Two gateways over one PostgreSQL and one Redis, before one upstream that keeps what it is asked: keys, limits, usage
 * and the tenants' cache salts are the same on both.
 */
import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Secret } from "#base/secret.ts";
import { KeyStore } from "#policy/key-store.ts";
import { openPepper } from "#policy/pepper.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore } from "#policy/store/store.ts";
import { postgresMissing, startPostgres } from "../fixtures/postgres.ts";
import { completion, keyFile, recordingUpstream } from "../fixtures/recording-upstream.ts";
import { redisMissing, startRedis } from "../fixtures/redis.ts";
import { startServer, type TestServer, until } from "../harness.ts";

const PEPPER = Buffer.alloc(32, 7);

async function administrator(url: string, stateDir: string): Promise<string> {
  const state = openStateDirectory(stateDir);
  const store = await openStore({ state, databaseUrl: new Secret(url) });
  try {
    const keys = new KeyStore(store, await openPepper(store, state, PEPPER));
    const spec = { tenant: "default", name: "admin", role: "admin", reach: {}, limits: {}, caps: {} } as const;
    return (await keys.create(spec, "test")).key.expose();
  } finally {
    await store.close();
  }
}

test("keys, limits, usage and salts are shared", {
  skip: redisMissing ?? postgresMissing ?? false,
  timeout: 120_000,
}, async (t) => {
  const [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
  t.after(() => Promise.all([redis.stop(), postgres.stop()]));
  const upstream = await recordingUpstream(({ socket }) => socket.write(completion({ prompt: 2, completion: 3 })));
  t.after(() => upstream.close());
  const pepper = join(mkdtempSync(join(tmpdir(), "castellan-pepper-")), "pepper");
  writeFileSync(pepper, PEPPER, { mode: 0o600 });
  const env = { CASTELLAN_DATABASE_URL: await postgres.database(), CASTELLAN_REDIS_URL: redis.url };
  const args = ["--pepper-file", pepper, "--upstream", upstream.origin, "--upstream-key-file", keyFile()];
  args.push("--tenant-limits", '{"few": {"requestsPerDay": 20}, "tokens": {"tokensPerDay": 50}}');
  const first = await startServer({ env, args });
  t.after(() => first.stop());
  const second = await startServer({ env, args });
  t.after(() => second.stop());
  const both = [first, second] as const;
  const admin = await administrator(env.CASTELLAN_DATABASE_URL, first.stateDir);
  const asAdmin = (at: TestServer, path: string, body?: object) =>
    fetch(at.opsUrl + path, {
      method: body === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${admin}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  await until("the administrator is known", async () =>
    (await Promise.all(both.map((at) => asAdmin(at, "/admin/usage?by=tenant")))).every(({ status }) => status === 200),
  );
  const made = async (at: TestServer, tenant: string): Promise<string> => {
    const answer = await asAdmin(at, "/admin/keys/create", { name: tenant, tenant, role: "service" });
    const text = await answer.text();
    return (JSON.parse(text) as { key?: string }).key ?? assert.fail(text);
  };
  const ask = (at: TestServer, key: string, more: object = {}) =>
    at.fetch("/v1/completions", {
      method: "POST",
      body: JSON.stringify({ model: "inside", prompt: "Hi", max_tokens: 3, ...more }),
      key,
    });
  const keys = {
    a: await made(first, "a"),
    b: await made(second, "b"),
    few: await made(first, "few"),
    tokens: await made(second, "tokens"),
  };
  for (const key of [keys.a, keys.b])
    for (const at of both) await until("the key is known", async () => (await ask(at, key)).status === 200);
  const saltOf = async (at: TestServer, key: string, own?: string): Promise<unknown> => {
    upstream.calls.length = 0;
    assert.equal((await ask(at, key, own === undefined ? {} : { cache_salt: own })).status, 200);
    return JSON.parse(upstream.calls[0]?.body.toString() ?? "{}").cache_salt;
  };
  for (const own of [undefined, "mine"]) {
    const [here, there] = [await saltOf(first, keys.a, own), await saltOf(second, keys.a, own)];
    assert.equal(here, there);
    assert.equal(typeof here, "string");
    assert.notEqual(here, await saltOf(second, keys.b, own), "tenants share a salt");
  }
  const served = async (key: string): Promise<number> => {
    const statuses = await Promise.all(
      Array.from({ length: 60 }, async (_, i) => (await ask(both[i % 2] ?? first, key)).status),
    );
    assert.ok(
      statuses.every((status) => [200, 429].includes(status)),
      String(statuses),
    );
    return statuses.filter((status) => status === 200).length;
  };
  for (const key of [keys.few, keys.tokens])
    for (const at of both)
      await until(
        "no stranger",
        async () => (await at.fetch("/v1/completions", { method: "POST", body: "{", key })).status !== 401,
      );
  upstream.calls.length = 0;
  const few = await served(keys.few);
  assert.ok(few <= 20 && few >= 1, `${few}`);
  assert.equal(upstream.calls.length, few, "what is refused is not sent");
  // Some of those that would have fitted find their room reserved for what the others may come to.
  let tokens = await served(keys.tokens);
  assert.ok(tokens <= 10 && tokens >= 1, `${tokens}`);
  while ((await ask(second, keys.tokens)).status === 200) tokens++;
  assert.equal(tokens, 10);
  const { data } = (await (await asAdmin(second, "/admin/usage?by=tenant")).json()) as {
    data: readonly { tenant: string; prompt_tokens: number; completion_tokens: number }[];
  };
  for (const [tenant, count] of Object.entries({ few, tokens })) {
    const row = data.find((each) => each.tenant === tenant);
    assert.deepEqual([row?.prompt_tokens, row?.completion_tokens], [2 * count, 3 * count], tenant);
  }
});
