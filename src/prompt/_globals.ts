/**
 * The names that every chat template may use without being given them, bounded.
 *
 * As Hugging Face's transformers (utils/chat_template_utils.py) gives them: raise_exception, strftime_now, and
 * Jinja's range and constants.
 */
import type { Budget } from "./_budget.ts";

/** The template refused the conversation with raise_exception(message). */
export class TemplateRefusal extends Error {}

/** Names that stand in every scope; a client's variable may not replace them. */
export const GLOBAL_NAMES = [
  "true",
  "false",
  "none",
  "True",
  "False",
  "None",
  "range",
  "namespace",
  "loop",
  "raise_exception",
  "strftime_now",
];

export function templateGlobals(budget: Budget, now: Date): Record<string, unknown> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range: (start: unknown, stop?: unknown, step?: unknown) => range(budget, start, stop, step),
    raise_exception: (message: unknown) => {
      throw new TemplateRefusal(typeof message === "string" ? message : "refused");
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
  };
}

function range(budget: Budget, first: unknown, second: unknown, third: unknown): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const step = third ?? 1;
  if (!Number.isInteger(start) || !Number.isInteger(stop) || !Number.isInteger(step) || step === 0) {
    throw new Error("range() wants integers and a step that is not 0");
  }
  const length = Math.max(0, Math.ceil(((stop as number) - (start as number)) / (step as number)));
  budget.items(length);
  budget.charge(length);
  return Array.from({ length }, (_, index) => (start as number) + index * (step as number));
}

const MONTHS = "January February March April May June July August September October November December".split(" ");
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** Python's strftime in the C locale and local time, as far as chat templates use it; others stay as they are. */
export function strftime(date: Date, format: string): string {
  const two = (n: number): string => String(n).padStart(2, "0");
  const month = MONTHS[date.getMonth()] as string;
  const day = DAYS[date.getDay()] as string;
  const fields: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    b: month.slice(0, 3),
    B: month,
    a: day.slice(0, 3),
    A: day,
    H: two(date.getHours()),
    I: two(date.getHours() % 12 || 12),
    p: date.getHours() < 12 ? "AM" : "PM",
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    "%": "%",
  };
  return format.replace(/%([A-Za-z%])/g, (whole, letter: string) => fields[letter] ?? whole);
}
