/**
 * What people write about keys on a command line, and what it means: times, budgets, lists, figures. Pure.
 *
 * @throws KeyError of every function: what would have been right
 */
import { BUDGET_UNITS, type Budget, type BudgetUnit, PERIODS, type Period } from "#core/limits.ts";
import { CAP_ROWS, type CapName } from "#core/request-caps.ts";
import { KeyError } from "#policy/key-spec.ts";

const MILLISECONDS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 7 * 86_400_000,
  y: 365 * 86_400_000,
};
const DURATION = /^([0-9]{1,9})([smhdwy])$/;
const DATE = /^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}))?$/;

/** `90d`, `12h`; also 0. @returns milliseconds */
export function durationOf(text: string): number {
  if (text === "0") return 0;
  const [, count, unit = ""] = DURATION.exec(text) ?? [];
  const factor = MILLISECONDS[unit];
  if (factor === undefined) throw new KeyError(`${quoted(text)} is no duration such as 30m, 12h, 90d or 1y`);
  return Number(count) * factor;
}

/** A duration from now, or a date: `90d`, `2030-01-31` (its first moment in UTC), `2030-01-31T12:00Z`. */
export function timeOf(text: string, now: number): number {
  if (DURATION.test(text)) return now + durationOf(text);
  const time = DATE.test(text) ? Date.parse(text) : Number.NaN;
  // Date.parse takes the 31st of February for the 3rd of March.
  if (Number.isNaN(time) || (text.length === 10 && new Date(time).toISOString().slice(0, 10) !== text))
    throw new KeyError(
      `${quoted(text)} is neither a duration such as 90d nor a date such as 2030-01-31 or 2030-01-31T12:00Z`,
    );
  return time;
}

const BUDGET = /^([0-9][0-9_]{0,17})(?:\.([0-9]{1,6}))?([a-z]+)\/([a-z]+)$/;

/** `10usd/month`, `1000000tokens/day`. Dollars become micro-dollars, exactly. */
export function budgetOf(text: string): Budget {
  const [, whole = "", fraction = "", unit = "", period = ""] = BUDGET.exec(text) ?? [];
  const fits =
    BUDGET_UNITS.includes(unit as BudgetUnit) &&
    PERIODS.includes(period as Period) &&
    (unit === "usd" || fraction === "");
  const digits = whole.replaceAll("_", "") + (unit === "usd" ? fraction.padEnd(6, "0") : "");
  const amount = Number(digits);
  if (!fits || digits === "" || !Number.isSafeInteger(amount))
    throw new KeyError(`${quoted(text)} is no budget such as 10usd/month, 0.50usd/day or 1000000tokens/week`);
  return { period: period as Period, unit: unit as BudgetUnit, amount };
}

export function budgetText({ amount, unit, period }: Budget): string {
  if (unit !== "usd") return `${amount}${unit}/${period}`;
  const fraction = String(amount % 1_000_000)
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  return `${Math.floor(amount / 1_000_000)}${/^0+$/.test(fraction) ? "" : `.${fraction}`}usd/${period}`;
}

export function figureOf(text: string, what: string): number {
  const value = Number(text.replaceAll("_", ""));
  if (!/^[0-9][0-9_]*$/.test(text) || !Number.isSafeInteger(value))
    throw new KeyError(`${what} takes a whole number, not ${quoted(text)}`);
  return value;
}

/** `n=2`: by the names of the table of request caps, in either spelling. */
export function capOf(text: string): readonly [CapName, number] {
  const [name = "", value = "", rest] = text.split("=");
  const names = Object.keys(CAP_ROWS) as CapName[];
  const known = names.find((cap) => cap === name || kebab(cap) === name);
  if (known === undefined || rest !== undefined)
    throw new KeyError(`${quoted(text)} is no cap such as n=2; there are ${names.map(kebab).join(", ")}`);
  const figure = Number(value.replaceAll("_", ""));
  if (!/^-?[0-9][0-9_]*(\.[0-9]+)?$/.test(value))
    throw new KeyError(`the cap ${name} takes a number, not ${quoted(value)}`);
  return [known, figure];
}

export function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
