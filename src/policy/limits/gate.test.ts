/**
 * What a metered gate takes, gives back, books and says.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import { NO_USAGE } from "#core/metering.ts";
import { plainGate } from "#policy/gate.ts";
import { NO_PEER } from "#policy/peer.ts";
import { principalOf } from "#policy/roles.ts";
import { OK, scene, used, work } from "./_fixture.ts";
import { DAY_MS, MINUTE_MS } from "./windows.ts";

const fault = (kind: FaultKind, message?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof Fault, String(error));
  assert.equal(error.kind, kind, error.message);
  if (message !== undefined) assert.match(error.message, message);
  return true;
};
const REFUSED = { status: 429, fault: "rate_limited" } as const;

test("requests per minute: the message names the limit and the wait, the next minute begins anew", async () => {
  const s = scene();
  const limits = { requestsPerMinute: 2 };
  for (let i = 0; i < 2; i++) {
    const call = s.open("a1", limits);
    await call.admit();
    call.close(OK);
  }
  const third = s.open("a1", limits);
  assert.throws(
    () => third.admit(),
    (error) => {
      assert.ok(error instanceof Fault);
      assert.equal(
        error.message,
        "Rate limit reached for requests per minute of this key: limit 2, used 2. Try again in 50 s.",
      );
      assert.equal(error.retryAfterMs, 50_000);
      return true;
    },
  );
  assert.deepEqual(third.headers(), {
    "x-ratelimit-limit-requests": "2",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "50s",
  });
  third.close(REFUSED);
  assert.deepEqual(s.refused, ["key requests_per_minute"]);
  await s.open("a2", limits).admit();
  s.now += MINUTE_MS;
  await s.open("a1", limits).admit();
});

test("concurrent requests: a closed call gives its place back, a refused one had none", async () => {
  const s = scene({ tenants: { a: { concurrentRequests: 2 } } });
  const [one, two, three] = [s.open("a1"), s.open("a2"), s.open("a1")];
  await one.admit();
  await two.admit();
  assert.throws(() => three.admit(), fault("rate_limited", /concurrent requests of this tenant: limit 2, used 2/));
  three.close(REFUSED);
  assert.throws(() => s.open("a1").admit(), fault("rate_limited"));
  one.close(OK);
  await s.open("a1").admit();
  assert.throws(() => s.open("a1").admit(), fault("rate_limited"));
});

test("tokens: the estimate is taken, the rest comes back, and a refusal takes nothing from anybody", async () => {
  const s = scene({ tenants: { a: { completionTokensPerMinute: 1000 } } });
  const limits = { tokensPerMinute: 100 };
  const call = s.open("a1", limits);
  await call.admit();
  const first = await call.meter.reserve(work(10, 80));
  assert.equal(call.headers()["x-ratelimit-remaining-tokens"], "10");
  await assert.rejects(
    async () => call.meter.reserve(work(1, 10)),
    fault("rate_limited", /tokens per minute of this key: limit 100, used 90, asked for up to 11\. Try again in 50 s/),
  );
  await first.settle(used(10, 20));
  await first.settle(used(10, 80));
  const second = await call.meter.reserve(work(0, 70));
  await assert.rejects(async () => call.meter.reserve(work(0, 1)), fault("rate_limited"));
  await second.settle(NO_USAGE);
  // The tenant's counter has the 20 that were settled and nothing of what was refused.
  await assert.rejects(
    async () => s.open("a2").meter.reserve(work(0, 981)),
    fault("rate_limited", /completion tokens per minute of this tenant: limit 1000, used 20/),
  );
  await s.open("a2").meter.reserve(work(0, 980));
});

test("a refund goes to the window that it was taken from", async () => {
  const s = scene();
  const limits = { tokensPerMinute: 100 };
  const before = await s.open("a1", limits).meter.reserve(work(0, 100));
  s.now += MINUTE_MS;
  await s.open("a1", limits).meter.reserve(work(0, 60));
  await before.settle(NO_USAGE);
  await assert.rejects(async () => s.open("a1", limits).meter.reserve(work(0, 41)), fault("rate_limited"));
  await s.open("a1", limits).meter.reserve(work(0, 40));
});

test("what could never be granted is no 429", async () => {
  const s = scene({ models: { m: { queuedSequences: 2 } }, prices: { m: { prompt: 1, completion: 1 } } });
  const reserve = async (limits: object, w = work(50, 60)) => s.open("a1", limits).meter.reserve(w);
  await assert.rejects(
    reserve({ tokensPerMinute: 100 }),
    fault(
      "invalid_request",
      /up to 110 tokens and the limit for tokens per minute of this key is 100\. Ask for a lower/,
    ),
  );
  await assert.rejects(reserve({ promptTokensPerDay: 49 }), fault("invalid_request", /shorter prompt/));
  await assert.rejects(
    reserve({ budgets: [{ period: "month", unit: "usd", amount: 100 }] }),
    fault("invalid_request", /up to \$0\.00011 and the limit for US dollars per month of this key is \$0\.0001\./),
  );
  await assert.rejects(reserve({}, work(1, 1, { sequences: 3 })), fault("invalid_request", /3 sequences/));
  await assert.rejects(async () => s.open("a1", { requestsPerDay: 0 }).admit(), fault("forbidden"));
});

test("budgets: dollars by the model's price, cached tokens by theirs, in calendar periods", async () => {
  const prices = { m: { prompt: 2, completion: 10, cached: 0.5 } };
  const limits = { budgets: [{ period: "month", unit: "usd", amount: 1000 } as const] };
  const s = scene({ prices });
  const call = s.open("a1", limits);
  await call.admit();
  const first = await call.meter.reserve(work(100, 50));
  await first.settle(used(100, 50, 40));
  assert.equal(s.rows.at(-1)?.cost, 60 * 2 + 40 * 0.5 + 50 * 10);
  await assert.rejects(
    async () => call.meter.reserve(work(0, 37)),
    fault(
      "rate_limited",
      /US dollars per month of this key: limit \$0\.001, used \$0\.00064, asked for up to \$0\.00037\. Try again in 5 d 11 h/,
    ),
  );
  await call.meter.reserve(work(0, 36));
  s.now = Date.UTC(2026, 11, 1);
  await s.open("a1", limits).meter.reserve(work(0, 100));
  // A model without a price costs nothing.
  await s.open("a1", limits).meter.reserve(work(1e6, 1e6, { model: "free" }));
});

test("a model's limits hold for everybody, count its calls once, and their figures are nobody's business", async () => {
  const s = scene({ models: { m: { requestsPerMinute: 2, concurrentRequests: 1, tokensPerMinute: 1000 } } });
  const [a, b, c] = [s.open("a1"), s.open("b1"), s.open("c1")];
  for (const call of [a, b, c]) await call.admit();
  const first = await a.meter.reserve(work(5, 5));
  assert.deepEqual(a.headers(), {});
  await assert.rejects(
    async () => b.meter.reserve(work(5, 5)),
    fault("rate_limited", /^Rate limit reached for concurrent requests of this model: limit 1\. Try again when others/),
  );
  await first.settle(used(5, 5));
  await (await a.meter.reserve(work(5, 5))).settle(used(5, 5));
  await (await b.meter.reserve(work(5, 5))).settle(used(5, 5));
  await assert.rejects(
    async () => c.meter.reserve(work(5, 5)),
    fault("rate_limited", /requests per minute of this model/),
  );
  await c.meter.reserve(work(5, 5, { model: "other" }));
});

test("usage: one request a call, its tokens, and whether it failed", async () => {
  const s = scene();
  const sums = () => {
    const by: Record<string, number[]> = {};
    for (const { key, model, requests, errors, promptTokens, completionTokens } of s.rows) {
      const name = `${key} ${model}`;
      by[name] ??= [0, 0, 0, 0];
      by[name] = [requests, errors, promptTokens, completionTokens].map((n, i) => n + (by[name]?.[i] ?? 0));
    }
    return by;
  };
  const good = s.open("a1");
  await good.admit();
  await (await good.meter.reserve(work(10, 10))).settle(used(10, 3));
  await (await good.meter.reserve(work(10, 10))).settle(used(10, 4));
  await good.record(OK);
  good.close(OK);
  assert.deepEqual(sums(), { "a1 m": [1, 0, 20, 7] });

  const lost = s.open("a2");
  await lost.admit();
  const reservation = await lost.meter.reserve(work(10, 10));
  lost.close({ status: 200, fault: "engine_failed" });
  await reservation.settle(NO_USAGE);
  assert.deepEqual(sums()["a2 m"], [1, 1, 0, 0]);

  const left = s.open("a3");
  await left.admit();
  await (await left.meter.reserve(work(10, 10))).settle(used(10, 1));
  left.close({ status: 499, fault: "cancelled" });
  assert.deepEqual(sums()["a3 m"], [1, 0, 10, 1]);

  const bad = s.open("a4");
  await bad.admit();
  await bad.record({ status: 400, fault: "invalid_request" });
  bad.close({ status: 400, fault: "invalid_request" });
  assert.deepEqual(sums()["a4 "], [1, 1, 0, 0]);

  const refused = s.open("a5", { requestsPerMinute: 0 });
  assert.throws(() => refused.admit());
  await refused.record(REFUSED);
  refused.close(REFUSED);
  assert.equal(sums()["a5 "], undefined);
});

test("a call that was let in before midnight counts there, its tokens where they were reserved", async () => {
  const s = scene({ now: Date.UTC(2026, 10, 25, 23, 59, 59) });
  const call = s.open("a1", { tokensPerDay: 100, requestsPerDay: 1 });
  await call.admit();
  s.now += 2000;
  const reservation = await call.meter.reserve(work(5, 5));
  s.now += DAY_MS;
  await reservation.settle(used(5, 2));
  call.close(OK);
  assert.deepEqual(
    s.rows.map(({ day, requests, promptTokens }) => [day, requests, promptTokens]),
    [
      ["2026-11-26", 0, 5],
      ["2026-11-25", 1, 0],
    ],
  );
});

test("a restart gives no fresh day and no fresh budget", async () => {
  const limits = { requestsPerDay: 3, budgets: [{ period: "week", unit: "tokens", amount: 100 } as const] };
  const before = scene({ now: Date.UTC(2026, 10, 23, 0, 0, 1) });
  for (const tokens of [30, 20]) {
    const call = before.open("a1", limits);
    await call.admit();
    await (await call.meter.reserve(work(0, tokens))).settle(used(0, tokens));
    call.close(OK);
  }
  const after = scene({ rows: before.rows, now: Date.UTC(2026, 10, 23, 23) });
  const call = after.open("a1", limits);
  await call.admit();
  await assert.rejects(async () => after.open("a1", limits).admit(), fault("rate_limited", /requests per day/));
  await assert.rejects(async () => call.meter.reserve(work(0, 51)), fault("rate_limited", /tokens per week/));
  await call.meter.reserve(work(0, 50));
  const nextWeek = scene({ rows: before.rows, now: Date.UTC(2026, 10, 30) });
  await nextWeek.open("a1", limits).meter.reserve(work(0, 100));
});

test("one tenant cannot fill the queue: it may have open what is still free", async () => {
  const s = scene({ capacity: 12 });
  const flood = async (key: string) => {
    const attempts = Array.from({ length: 12 }, async () => s.open(key).meter.reserve(work(1, 1)));
    const outcomes = await Promise.allSettled(attempts);
    return outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
  };
  const a = await flood("a1");
  assert.equal(a.length, 6);
  assert.equal((await flood("b1")).length, 3);
  assert.equal((await flood("c1")).length, 2);
  await assert.rejects(async () => s.open("a2").meter.reserve(work(1, 1)), fault("rate_limited", /this tenant/));
  assert.ok(s.refused.includes("tenant queued_sequences"));
  for (const one of a) await one.settle(NO_USAGE);
  await s.open("c1").meter.reserve(work(1, 1));
});

test("the server itself and operators are not held, work on the operations listener is", async () => {
  const s = scene();
  const self = principalOf({ id: "self", kind: "server", tenant: "a", role: "user", limits: { requestsPerMinute: 0 } });
  await s.open("a1", {}, { principal: self }).admit();
  const ops = s.open("a1", { requestsPerMinute: 0, tokensPerMinute: 10 }, { plane: "ops" });
  await ops.admit();
  await assert.rejects(async () => ops.meter.reserve(work(0, 11)), fault("invalid_request"));
});

test("others around and inside: their admission, their record, their close, their meter, their headers", async () => {
  const log: string[] = [];
  const inner = {
    ...plainGate(() => principalOf({ id: "x", tenant: "x", role: "user" })),
    open: () => ({
      meter: {
        reserve: () => {
          log.push("reserve");
          return { settle: async () => void log.push("settle") };
        },
      },
      admit: () => void log.push("admit"),
      headers: () => ({ "x-other": "1" }),
      record: () => void log.push("record"),
      close: () => void log.push("close"),
    }),
  };
  const s = scene({ inner });
  assert.equal((s.gate.identify([], "openai", NO_PEER) as { id: string }).id, "x");
  const call = s.open("a1", { requestsPerMinute: 5 });
  await call.admit();
  const reservation = await call.meter.reserve(work(1, 1));
  await call.record(OK);
  await reservation.settle(used(1, 1));
  assert.equal(call.headers()["x-other"], "1");
  assert.equal(call.headers()["x-ratelimit-limit-requests"], "5");
  call.close(OK);
  assert.deepEqual(log, ["admit", "reserve", "record", "settle", "close"]);
});

test("when the inner meter refuses, everything goes back", async () => {
  const inner = {
    ...plainGate(() => principalOf({ id: "x", tenant: "x", role: "user" })),
    open: () => ({
      meter: {
        reserve: () => {
          throw new Fault("forbidden", "not today");
        },
      },
      admit: () => {},
      headers: () => ({}),
      record: () => {},
      close: () => {},
    }),
  };
  const s = scene({ inner, capacity: 4 });
  const call = s.open("a1", { queuedSequences: 1, tokensPerMinute: 2 });
  for (let i = 0; i < 3; i++) await assert.rejects(async () => call.meter.reserve(work(1, 1)), fault("forbidden"));
  assert.equal(s.books.queue.total, 0);
});

test("a ledger that cannot be asked is a 503, a book that cannot be written stops work", async () => {
  const away = () => Promise.reject(new Error("connect ECONNREFUSED 10.0.0.1"));
  const s = scene({ ledger: () => ({ take: away, close: async () => {} }) });
  await assert.rejects(
    async () => s.open("a1", { requestsPerMinute: 1 }).admit(),
    (error) => fault("policy_unavailable", /cannot check limits/)(error) && !/10\.0/.test((error as Error).message),
  );
  assert.deepEqual(s.refused, ["unavailable"]);
  const book = { failing: true, post: async () => {}, close: async () => {} };
  await assert.rejects(
    async () => scene({ usage: book }).open("a1").meter.reserve(work(1, 1)),
    fault("policy_unavailable"),
  );
});

test("a client that left while the ledger was asked leaves nothing taken", async () => {
  const s = scene();
  const limits = { concurrentRequests: 1, requestsPerDay: 5 };
  const call = s.open("a1", limits);
  const admitted = call.admit();
  assert.ok(admitted instanceof Promise, "the day's counter is read first");
  call.close({ status: 499, fault: "cancelled" });
  await admitted;
  await s.open("a1", limits).admit();
});
