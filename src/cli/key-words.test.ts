import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BUDGET_UNITS, PERIODS } from "#core/limits.ts";
import { KeyError } from "#policy/key-spec.ts";
import { budgetOf, budgetText, capOf, durationOf, figureOf, timeOf } from "./key-words.ts";

const refuses = (read: () => unknown, message: RegExp): void =>
  assert.throws(read, (error) => error instanceof KeyError && message.test(error.message));

test("durations", () => {
  const good: readonly [string, number][] = [
    ["0", 0],
    ["90s", 90_000],
    ["30m", 1_800_000],
    ["12h", 43_200_000],
    ["90d", 7_776_000_000],
    ["2w", 1_209_600_000],
    ["1y", 31_536_000_000],
  ];
  for (const [text, milliseconds] of good) assert.equal(durationOf(text), milliseconds, text);
  for (const bad of ["", "1", "d", "1.5d", "-1d", "1 d", "1mo", "1D", "9999999999d"])
    refuses(() => durationOf(bad), /no duration such as/);
});

test("times are durations from now, dates and moments", () => {
  assert.equal(timeOf("1d", 1000), 86_401_000);
  assert.equal(timeOf("2030-01-31", 0), Date.UTC(2030, 0, 31));
  assert.equal(timeOf("2030-01-31T12:00Z", 0), Date.UTC(2030, 0, 31, 12));
  assert.equal(timeOf("2030-01-31T12:00:05+02:00", 0), Date.UTC(2030, 0, 31, 10, 0, 5));
  for (const bad of [
    "",
    "tomorrow",
    "2030-02-31",
    "2030-13-01",
    "2030-01-31T12:00",
    "2030-1-1",
    "31.1.2030",
    "1893456000",
  ])
    refuses(() => timeOf(bad, 0), /neither a duration/);
});

test("budgets are exact to the micro-dollar, and print as they are read", () => {
  assert.deepEqual(budgetOf("10usd/month"), { amount: 10_000_000, unit: "usd", period: "month" });
  assert.deepEqual(budgetOf("0.000001usd/day"), { amount: 1, unit: "usd", period: "day" });
  assert.deepEqual(budgetOf("1_000_000tokens/week"), { amount: 1_000_000, unit: "tokens", period: "week" });
  const budget = fc.record(
    {
      amount: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
      unit: fc.constantFrom(...BUDGET_UNITS),
      period: fc.constantFrom(...PERIODS),
    },
    { noNullPrototype: true },
  );
  fc.assert(fc.property(budget, (made) => assert.deepEqual(budgetOf(budgetText(made)), made)));
  assert.deepEqual(
    ["10usd/month", "0.5usd/day", "0.000001usd/day"].map((text) => budgetText(budgetOf(text))),
    ["10usd/month", "0.50usd/day", "0.000001usd/day"],
  );
  for (const bad of [
    "",
    "10",
    "10usd",
    "10usd/year",
    "10eur/month",
    "1.5tokens/day",
    "0.0000001usd/day",
    "-1usd/day",
    "_usd/day",
    "1e3usd/day",
    "99999999999999999usd/day",
  ])
    refuses(() => budgetOf(bad), /no budget such as/);
});

test("caps go by the table's names, in either spelling", () => {
  assert.deepEqual(capOf("n=2"), ["n", 2]);
  assert.deepEqual(capOf("stop-strings=1"), ["stopStrings", 1]);
  assert.deepEqual(capOf("stopStrings=1"), ["stopStrings", 1]);
  assert.deepEqual(capOf("logprobs=-1"), ["logprobs", -1]);
  refuses(() => capOf("m=2"), /no cap such as n=2; there are body-bytes, .*\bn, /);
  refuses(() => capOf("__proto__=2"), /no cap/);
  refuses(() => capOf("n=2=3"), /no cap/);
  refuses(() => capOf("n=many"), /takes a number/);
  assert.deepEqual(capOf("grammar-seconds=0.5"), ["grammarSeconds", 0.5]);
});

test("figures are whole", () => {
  assert.equal(figureOf("1_000", "--x"), 1000);
  for (const bad of ["", "-1", "1.5", "1e3", "0x10", "_", "9007199254740993"])
    refuses(() => figureOf(bad, "--x"), /^--x takes/);
});
