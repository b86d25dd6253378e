/**
 * Windows of time in UTC. Pure. Used inside policy/limits/.
 *
 * Windows are fixed and begin where the calendar says. A refund can then go back to the window that it was taken from,
 * a day's counter is the day's row of the usage table, and two servers with the same clock name the same window. The
 * price: of two neighbouring minutes, each within its limit, the last seconds of one and the first of the next can
 * together hold twice the limit.
 */
import type { Period } from "#core/limits.ts";

/** `held`: no time at all; what is taken is given back when the work ends. */
export type WindowLength = "minute" | Period | "held";

export interface Span {
  /** Unix milliseconds; 0 where nothing ends. */
  readonly start: number;
  /** Exclusive; Infinity where nothing ends. */
  readonly end: number;
}

export const MINUTE_MS = 60_000;
export const DAY_MS = 24 * 60 * MINUTE_MS;
/** 1970-01-01 was a Thursday, weeks begin on Monday. */
const DAYS_FROM_MONDAY = 3;
const ALWAYS: Span = { start: 0, end: Number.POSITIVE_INFINITY };

/** The window that holds at this time. */
export function windowAt(length: WindowLength, at: number): Span {
  if (length === "held") return ALWAYS;
  if (length === "minute") return fixed(at, MINUTE_MS, 0);
  if (length === "day") return fixed(at, DAY_MS, 0);
  if (length === "week") return fixed(at, 7 * DAY_MS, DAYS_FROM_MONDAY * DAY_MS);
  const date = new Date(at);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return { start: Date.UTC(year, month), end: Date.UTC(year, month + 1) };
}

function fixed(at: number, length: number, offset: number): Span {
  const start = Math.floor((at + offset) / length) * length - offset;
  return { start, end: start + length };
}

/** The day that was asked for last: calls ask for the same one again and again. */
let known = { number: 0, name: "1970-01-01" };

/** `2026-11-25` */
export function dayOf(at: number): string {
  const number = Math.floor(at / DAY_MS);
  if (number !== known.number) known = { number, name: new Date(at).toISOString().slice(0, 10) };
  return known.name;
}
