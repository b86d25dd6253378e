/**
 * Limits over real HTTP, with the official client: what it sees, what comes back, what several servers share.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import type { Limits } from "#core/limits.ts";
import { postgresMissing, startPostgres } from "../fixtures/postgres.ts";
import { redisMissing, startRedis } from "../fixtures/redis.ts";
import { makeKey, startServer, type TestServer, until } from "../harness.ts";

const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-limits-")), "state");
const keys: Record<string, string> = {};
const LIMITS: Record<string, { tenant?: string; limits: Limits }> = {
  requests: { limits: { requestsPerDay: 2 } },
  tokens: { limits: { completionTokensPerDay: 20 } },
  places: { limits: { concurrentRequests: 2 } },
  budget: { limits: { budgets: [{ period: "month", unit: "usd", amount: 600 }] } },
  acme1: { tenant: "acme", limits: {} },
  acme2: { tenant: "acme", limits: {} },
  free: { limits: {} },
};
let server: TestServer;

before(async () => {
  for (const [name, more] of Object.entries(LIMITS)) keys[name] = await makeKey(stateDir, "service", { name, ...more });
  server = await startServer({
    stateDir,
    args: [
      "--tenant-limits",
      '{"acme": {"completionTokensPerDay": 100}}',
      "--model-prices",
      '{"*": {"prompt": 10, "completion": 100}}',
    ],
  });
});
after(() => server.stop());

const client = (key: string, url = server.url) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: keys[key] ?? key, maxRetries: 0 });
/** As many tokens as asked for. */
const ask = (key: string, max_tokens: number, url?: string) =>
  client(key, url)
    .completions.create({ model: "castellan-demo", prompt: [5], max_tokens, ignore_eos: true, temperature: 0 } as never)
    .withResponse();
const limited = async (promise: Promise<unknown>, message: RegExp) => {
  const error = await promise.then(
    () => assert.fail("it was not limited"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OpenAI.RateLimitError, String(error));
  assert.match(error.message, message);
  return error;
};

test("requests: headers on success, RateLimitError with Retry-After beyond", async () => {
  const first = await ask("requests", 1);
  assert.equal(first.response.headers.get("x-ratelimit-limit-requests"), "2");
  assert.equal(first.response.headers.get("x-ratelimit-remaining-requests"), "1");
  assert.match(first.response.headers.get("x-ratelimit-reset-requests") ?? "", /^(\d+h)?(\d+m)?\d+m?s$/);
  await ask("requests", 1);
  const error = await limited(ask("requests", 1), /requests per day of this key: limit 2, used 2\. Try again in/);
  assert.ok(Number(error.headers?.get("retry-after")) >= 1);
  assert.equal(error.headers?.get("x-ratelimit-remaining-requests"), "0");
  // A list of models is a request, too.
  assert.equal((await server.fetch("/v1/models", { key: keys["requests"] ?? "" })).status, 429);
});

test("tokens: what a short answer did not use comes back, what is too much for ever is a 400", async () => {
  const { response } = await ask("tokens", 5);
  assert.equal(response.headers.get("x-ratelimit-remaining-tokens"), "15");
  await limited(ask("tokens", 16), /completion tokens per day of this key: limit 20, used 5, asked for up to 16/);
  await assert.rejects(ask("tokens", 21), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "max_tokens");
    return true;
  });
  // A stop string ends the answer long before its most.
  const stopped = await client("tokens").chat.completions.create({
    model: "castellan-demo",
    messages: [{ role: "user", content: "What is Castellan?" }],
    max_tokens: 15,
    stop: ["a", "e", "i", "o"],
  });
  const used = 5 + (stopped.usage?.completion_tokens ?? 0);
  const { response: after } = await ask("tokens", 1);
  assert.equal(after.headers.get("x-ratelimit-remaining-tokens"), String(20 - used - 1));
});

test("a tenant's limit holds its keys together", async () => {
  await ask("acme1", 60);
  await limited(ask("acme2", 60), /completion tokens per day of this tenant/);
  await ask("acme2", 40);
});

test("concurrent requests: streams hold places, an aborted one gives its place back", async () => {
  const stream = (abort: AbortController) =>
    client("places").completions.create(
      { model: "castellan-demo", prompt: [5], max_tokens: 1500, ignore_eos: true, stream: true } as never,
      { signal: abort.signal },
    ) as unknown as Promise<AsyncIterable<unknown>>;
  const aborts = [new AbortController(), new AbortController()];
  const running = await Promise.all(aborts.map(stream));
  for (const events of running) await events[Symbol.asyncIterator]().next();
  await limited(ask("places", 1), /concurrent requests of this key: limit 2, used 2/);
  aborts[0]?.abort();
  await until("its place is free", () =>
    ask("places", 1).then(
      () => true,
      () => false,
    ),
  );
  aborts[1]?.abort();
});

test("a budget in dollars: the message says what an answer may cost", async () => {
  await ask("budget", 4);
  await limited(
    ask("budget", 2),
    /US dollars per month of this key: limit \$0\.0006, used \$0\.00041, asked for up to \$0\.00021/,
  );
  await ask("budget", 1);
});

test("no limit is passed by fifty at once", async () => {
  const key = await makeKey(stateDir, "user", { name: "crowd", limits: { completionTokensPerDay: 100 } });
  await until("the key is known", async () => (await server.fetch("/v1/models", { key })).status === 200);
  const outcomes = await Promise.allSettled(Array.from({ length: 50 }, () => ask(key, 10)));
  assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 10);
});

test("metrics count refusals by kind; a restart gives no fresh day", async () => {
  const metrics = await (await server.fetch("/metrics", { key: keys["free"] ?? "" })).text();
  assert.match(metrics, /castellan_limited_requests_total\{subject="key",limit="requests_per_day"\} [1-9]/);
  assert.match(metrics, /castellan_limited_requests_total\{subject="tenant",limit="completion_tokens_per_day"\} 1/);
  server.child.kill("SIGKILL");
  await server.exited;
  server = await startServer({ stateDir, args: ["--tenant-limits", '{"acme": {"completionTokensPerDay": 100}}'] });
  await limited(ask("requests", 1), /requests per day/);
  await limited(ask("acme1", 1), /this tenant: limit 100, used 100/);
});

test("two servers over one Redis and one PostgreSQL do not pass a limit together, and share what is used", {
  skip: redisMissing ?? postgresMissing ?? false,
}, async (t) => {
  const [redis, postgres] = await Promise.all([startRedis(), startPostgres()]);
  t.after(() => Promise.all([redis.stop(), postgres.stop()]));
  const pepper = join(mkdtempSync(join(tmpdir(), "castellan-pepper-")), "pepper");
  const { writeFileSync } = await import("node:fs");
  writeFileSync(pepper, Buffer.alloc(32, 7), { mode: 0o600 });
  const env = { CASTELLAN_DATABASE_URL: await postgres.database(), CASTELLAN_REDIS_URL: redis.url };
  const args = [
    "--pepper-file",
    pepper,
    "--key-limits",
    '{"completionTokensPerDay": 200}',
    "--tenant-limits",
    '{"*": {"concurrentRequests": 6}}',
  ];
  const both = [await startServer({ env, args }), await startServer({ env, args })] as const;
  t.after(() => Promise.all(both.map((one) => one.stop())));
  const key = "test-key-for-the-suite";
  let most = 0;
  let open = 0;
  const one = async (i: number): Promise<number> => {
    for (let tries = 0; tries < 200; tries++) {
      try {
        const { data } = await client(key, both[i % 2]?.url)
          .completions.create({
            model: "castellan-demo",
            prompt: [5],
            max_tokens: 9,
            ignore_eos: true,
          } as never)
          .withResponse();
        open++;
        most = Math.max(most, open);
        open--;
        return data.usage?.completion_tokens ?? 0;
      } catch (error) {
        assert.ok(error instanceof OpenAI.RateLimitError, String(error));
        if (/per day/.test(error.message)) return 0;
        await new Promise((done) => setTimeout(done, 10));
      }
    }
    return assert.fail("never let in");
  };
  const tokens = await Promise.all(Array.from({ length: 40 }, (_, i) => one(i)));
  const total = tokens.reduce((sum, n) => sum + n, 0);
  assert.ok(total <= 200 && total > 200 - 9, `${total} tokens`);

  await redis.kill();
  await until("calls are refused", async () => (await both[0].fetch("/v1/models")).status === 503);
  const refusal = await both[0].fetch("/v1/models");
  assert.match(await refusal.text(), /cannot check limits at the moment/);
  await redis.start();
  // A Redis that has forgotten everything: the usage table has not.
  await until("the shared limits are back", async () => (await both[1].fetch("/v1/models")).status === 200);
  await assert.rejects(ask(key, 10, both[1].url), OpenAI.RateLimitError);
});
