/**
 * The small pure parts: rules, windows, prices, words and headers.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { goDuration, limitHeaders } from "./headers.ts";
import { entryAt } from "./ledger.ts";
import { costOf } from "./price.ts";
import { dollars, inWords } from "./refusal.ts";
import { LIMIT_KINDS, type Rule, rulesOf, type Subject } from "./rules.ts";
import { DAY_MS, windowAt } from "./windows.ts";

test("limits become one rule a kind, of the closed list; of equal budgets the smaller holds", () => {
  const limits = {
    requestsPerMinute: 1,
    queuedSequences: 0,
    budgets: [
      { period: "day", unit: "usd", amount: 5 },
      { period: "day", unit: "usd", amount: 3 },
      { period: "day", unit: "tokens", amount: 9 },
    ],
  } as const;
  const rules = rulesOf(limits);
  assert.deepEqual(
    rules.map(({ kind, limit }) => [kind, limit]),
    [
      ["requests_per_minute", 1],
      ["queued_sequences", 0],
      ["usd_budget_per_day", 3],
      ["token_budget_per_day", 9],
    ],
  );
  assert.ok(rules.every(({ kind }) => LIMIT_KINDS.includes(kind)));
  assert.equal(new Set(LIMIT_KINDS).size, 16);
  assert.equal(rulesOf(limits), rules);
  assert.deepEqual(rulesOf(undefined), []);
});

test("windows: where they begin and end in UTC", () => {
  const at = Date.UTC(2026, 10, 25, 13, 14, 15, 16);
  const shown = (length: Parameters<typeof windowAt>[0], time = at) => {
    const { start, end } = windowAt(length, time);
    return [start, end].map((edge) => new Date(edge).toISOString().slice(0, 16));
  };
  assert.deepEqual(shown("minute"), ["2026-11-25T13:14", "2026-11-25T13:15"]);
  assert.deepEqual(shown("day"), ["2026-11-25T00:00", "2026-11-26T00:00"]);
  assert.deepEqual(shown("week"), ["2026-11-23T00:00", "2026-11-30T00:00"]);
  assert.deepEqual(shown("month"), ["2026-11-01T00:00", "2026-12-01T00:00"]);
  assert.deepEqual(shown("month", Date.UTC(2026, 11, 31)), ["2026-12-01T00:00", "2027-01-01T00:00"]);
  assert.deepEqual(windowAt("held", at), { start: 0, end: Number.POSITIVE_INFINITY });
});

test("windows follow each other without a gap, and hold their time", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 4e12 }),
      fc.constantFrom("minute" as const, "day" as const, "week" as const, "month" as const),
      (at, length) => {
        const { start, end } = windowAt(length, at);
        assert.ok(start <= at && at < end);
        assert.equal(windowAt(length, end).start, end);
        assert.deepEqual(windowAt(length, start), { start, end });
      },
    ),
  );
});

test("costs are whole micro-dollars, rounded up, and never more than what was reserved", () => {
  const tokens = (promptTokens: number, completionTokens: number, cachedTokens = 0) => ({
    promptTokens,
    completionTokens,
    cachedTokens,
  });
  assert.equal(costOf(undefined, tokens(1e6, 1e6)), 0);
  assert.equal(costOf({ prompt: 0.15, completion: 0.6 }, tokens(20, 0)), 3);
  assert.equal(costOf({ prompt: 0.15, completion: 0.6 }, tokens(1_000_000, 1_000_000)), 750_000);
  assert.equal(costOf({ prompt: 0.15, completion: 0.6, cached: 0 }, tokens(21, 0, 20)), 1);
  const amount = fc.nat(1_000_000);
  fc.assert(
    fc.property(
      fc.double({ min: 0, max: 1000, noNaN: true }),
      amount,
      amount,
      amount,
      amount,
      (price, p, c, less, cached) => {
        const prices = { prompt: price, completion: price * 4, cached: price / 2 };
        const used = tokens(p, Math.min(c, less), Math.min(p, cached));
        assert.ok(costOf(prices, used) <= costOf(prices, tokens(p, c)));
      },
    ),
  );
});

test("figures for people", () => {
  assert.deepEqual([0, 1, 10_000, 1_500_000, 25_000_000].map(dollars), ["0.00", "0.000001", "0.01", "1.50", "25.00"]);
  assert.deepEqual([1, 12_000, 61_000, 3_600_000, DAY_MS * 5 + 39_600_001].map(inWords), [
    "1 s",
    "12 s",
    "1 min 1 s",
    "1 h",
    "5 d 11 h",
  ]);
  assert.deepEqual([0, 850, 1000, 60_000, 360_000, 3_723_500].map(goDuration), [
    "0ms",
    "850ms",
    "1s",
    "1m0s",
    "6m0s",
    "1h2m4s",
  ]);
});

test("headers: the tightest limit of a group, by dialect, nothing of models", () => {
  const at = Date.UTC(2026, 10, 25, 13, 14, 15);
  const [key, model]: Subject[] = [
    { kind: "key", id: "k" },
    { kind: "model", id: "m" },
  ] as const;
  const standing = (subject: Subject, rule: Rule, used: number) => ({
    entries: [entryAt(subject, rule, 1, at)],
    used: [used],
  });
  const minute = { window: "minute", limit: 100 } as const;
  const standings = [
    standing(key as Subject, { kind: "requests_per_minute", measure: "requests", ...minute }, 90),
    standing(key as Subject, { kind: "requests_per_day", measure: "requests", window: "day", limit: 1000 }, 950),
    standing(key as Subject, { kind: "tokens_per_minute", measure: "tokens", ...minute }, 20),
    standing(key as Subject, { kind: "prompt_tokens_per_minute", measure: "prompt", ...minute }, 10),
    standing(model as Subject, { kind: "tokens_per_minute", measure: "tokens", ...minute }, 99),
    standing(key as Subject, { kind: "concurrent_requests", measure: "calls", window: "held", limit: 2 }, 2),
  ];
  assert.deepEqual(limitHeaders("openai", standings, at), {
    "x-ratelimit-limit-requests": "1000",
    "x-ratelimit-remaining-requests": "50",
    "x-ratelimit-reset-requests": "10h45m45s",
    "x-ratelimit-limit-tokens": "100",
    "x-ratelimit-remaining-tokens": "80",
    "x-ratelimit-reset-tokens": "45s",
  });
  assert.deepEqual(limitHeaders("anthropic", standings, at), {
    "anthropic-ratelimit-requests-limit": "1000",
    "anthropic-ratelimit-requests-remaining": "50",
    "anthropic-ratelimit-requests-reset": "2026-11-26T00:00:00.000Z",
    "anthropic-ratelimit-tokens-limit": "100",
    "anthropic-ratelimit-tokens-remaining": "80",
    "anthropic-ratelimit-tokens-reset": "2026-11-25T13:15:00.000Z",
    "anthropic-ratelimit-input-tokens-limit": "100",
    "anthropic-ratelimit-input-tokens-remaining": "90",
    "anthropic-ratelimit-input-tokens-reset": "2026-11-25T13:15:00.000Z",
  });
});
