/**
 * Building blocks of the administration's schemas: fields of a query, times, names in snake_case. Pure.
 */
import { z } from "zod";

/** A whole number in a query, where everything is text. */
export function queryCount(min: number, max: number, fallback: number, doc: string) {
  const fits = (text: string): boolean => /^[0-9]{1,9}$/.test(text) && Number(text) >= min && Number(text) <= max;
  return z
    .string()
    .refine(fits, `takes a whole number from ${min} to ${max}`)
    .meta({ type: "integer", minimum: min, maximum: max, default: fallback, description: doc })
    .optional()
    .transform((text) => (text === undefined ? fallback : Number(text)));
}

/** RFC 3339, with an offset. */
export const timestamp = z.iso.datetime({ offset: true });
/** As it is printed; null: not. */
export const printedTime = z.iso.datetime().nullable();
export const count = z.int().nonnegative();

/** `requestsPerMinute` → `requests_per_minute`. */
export function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

export function snakeKeys(values: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [snake(name), value]));
}

/** Without what is absent or null. */
export function given<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== null),
  ) as ReturnType<typeof given<T>>;
}
