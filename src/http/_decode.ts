/**
 * From bytes and query to what a route's schemas say, or a Fault that names the field.
 */
import type { ZodType } from "zod";
import { parseJson } from "#base/json.ts";
import { clip, conform, MAX_PATH } from "#core/conform.ts";
import { Fault } from "#core/fault.ts";
import { readable } from "#core/readable.ts";

/** @throws Fault invalid_json | invalid_request */
export function decodeBody<T>(schema: ZodType<T>, bytes: Uint8Array): T {
  return conform(
    schema,
    readable("character", () => parseJson(bytes)),
  );
}

/**
 * @param repeats parameters that may stand there several times, and are arrays for the schema
 * @throws Fault invalid_request
 */
export function decodeQuery<T>(schema: ZodType<T>, url: string, repeats: readonly string[] = []): T {
  const values = new Map<string, string | string[]>();
  for (const [name, value] of new URLSearchParams(queryOf(url))) {
    // No store can look for one, and no name has one.
    if (value.includes("\0"))
      throw new Fault("invalid_request", "A query parameter has a NUL.", { param: clip(name, MAX_PATH) });
    const before = values.get(name);
    if (repeats.includes(name)) values.set(name, [...(before ?? []), value]);
    else if (before === undefined) values.set(name, value);
    else throw new Fault("invalid_request", "A query parameter stands twice.", { param: clip(name, MAX_PATH) });
  }
  // fromEntries defines own properties, so that a parameter named __proto__ is only a name.
  return conform(schema, Object.fromEntries(values));
}

/**
 * A query of the parameters that a schema has taken, and of no others, encoded anew.
 * @param decoded what `decodeQuery` gave for the same target
 */
export function canonicalQuery(decoded: unknown, url: string): string {
  const known = new URLSearchParams();
  for (const [name, value] of new URLSearchParams(queryOf(url)))
    if (Object.hasOwn(decoded as object, name)) known.append(name, value);
  return known.toString();
}

function queryOf(url: string): string {
  const at = url.indexOf("?");
  return at < 0 ? "" : url.slice(at + 1);
}
