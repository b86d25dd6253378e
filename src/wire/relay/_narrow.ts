/**
 * A body held against a schema of a hundred fields at the cost of those that it has: the others are left out of the
 * schema, but for fields whose absence is refused or stands for a value.
 *
 * Invariant: value and Fault are those of the whole schema, whatever the body is. Clients choose the sets of fields, and
 * each is compiled: so many are kept, and what comes later is held against the whole. Used by rules.ts.
 */
import type { ZodObject, z } from "zod";
import { conform } from "#core/conform.ts";
import type { JsonObject } from "#wire/openai/_compound.ts";

const MOST_SETS = 32;

/** @param schema without refinements of its own @returns holds a body against it. @throws Fault invalid_request */
export function narrowed<S extends ZodObject>(schema: S): (body: JsonObject) => z.infer<S> {
  const sets = new Map<string, ZodObject>();
  let telling: ReadonlySet<string> | undefined;
  const narrow = (fields: readonly string[]): ZodObject => {
    telling ??= tellingOf(schema);
    const kept = new Set([...telling, ...fields]);
    return picked(schema, (name) => kept.has(name));
  };
  return (body) => {
    const fields = Object.keys(body);
    const set = fields.join();
    let own = sets.get(set);
    if (own === undefined && sets.size < MOST_SETS) {
      own = narrow(fields);
      sets.set(set, own);
    }
    return conform(own ?? schema, body) as z.infer<S>;
  };
}

/** In the schema's order, in which it finds fault. */
function picked(schema: ZodObject, keeps: (name: string) => boolean): ZodObject {
  const names = Object.keys(schema.shape).filter(keeps);
  return schema.pick(Object.fromEntries(names.map((name) => [name, true])) as Parameters<ZodObject["pick"]>[0]);
}

/** Fields that are missed, or filled in, where they are not there. */
function tellingOf(schema: ZodObject): ReadonlySet<string> {
  const tells = (name: string): boolean => {
    // Each is asked once: compiling it would cost more.
    const { success, data } = picked(schema, (other) => other === name).safeParse({}, { jitless: true });
    return !success || Object.keys(data).length > 0;
  };
  return new Set(Object.keys(schema.shape).filter(tells));
}
