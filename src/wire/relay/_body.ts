/**
 * A request's body as far as policy needs it: small fields as values, the others as what a scan says of them.
 */
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import type { JsonMember } from "#base/json-scan.ts";
import { invalid } from "#core/fault.ts";
import { readable } from "#core/readable.ts";
import type { JsonObject } from "#wire/openai/_compound.ts";

/** What a member's judgement may depend on: not where it stands, nor, but of a few fields, how long it is. */
export interface Shape extends Pick<JsonMember, "name" | "kind" | "first" | "count" | "depth" | "widest"> {
  readonly empty: boolean;
  /** Of its text; 0 unless its rule asks for it. */
  readonly bytes: number;
}
export type Shapes = ReadonlyMap<string, Shape>;

/** @param sized whether its judge asks how long it is */
export function shapeOf({ name, kind, first, count, depth, widest, start, end }: JsonMember, sized: boolean): Shape {
  return { name, kind, first, count, depth, widest, empty: end - start === 2, bytes: sized ? end - start : 0 };
}

/** The value of a member. @throws Fault invalid_json */
export function valueAt(bytes: Buffer, { name, start, end, kind }: JsonMember): JsonValue {
  switch (kind) {
    case "true":
      return true;
    case "false":
      return false;
    case "null":
      return null;
    case "number":
      // The scan has read it: its text is a number in range.
      return Number(bytes.toString("latin1", start, end));
    default:
      return readable("byte", () => within(name, () => parseJson(bytes.toString("utf8", start, end))));
  }
}

function within<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new JsonError(error.message, error.path === "" ? name : `${name}.${error.path}`, error.offset);
  }
}

/**
 * A value of the same kind and length that costs nothing to look at, for decoders that count entries.
 * @param entry what stands for each entry of a list
 * @param most entries that a decoder takes; a longer list comes as one that is too long by the same text
 * @throws Fault invalid_request: too many
 */
export function standIn(shape: Shape | undefined, entry: unknown, most: number): unknown {
  if (shape === undefined) return undefined;
  const { kind, name, count, empty } = shape;
  if (kind === "string") return empty ? "" : "x";
  if (kind === "array") {
    if (count > most) throw invalid(name, `${name} has ${count} entries; at most ${most} are taken.`);
    return new Array<unknown>(count).fill(entry);
  }
  return kind === "object" ? {} : kind === "number" ? 0 : kind === "null" ? null : kind === "true";
}

/** Of prompts: token ids are one prompt, however many. */
export function promptStandIn(shape: Shape | undefined, most: number): unknown {
  if (shape?.kind !== "array") return standIn(shape, "x", most);
  if (shape.first === "number") return [0];
  return standIn(shape, shape.first === "array" ? [0] : shape.first === "string" ? "x" : null, most);
}

/** @param fields whose values are wanted */
export function smallFields(bytes: Buffer, members: readonly JsonMember[], fields: ReadonlySet<string>): JsonObject {
  const values: Record<string, JsonValue> = {};
  for (const member of members) if (fields.has(member.name)) values[member.name] = valueAt(bytes, member);
  return values;
}
