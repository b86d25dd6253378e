/**
 * Bodies with something else in one place, for tests that put strange values everywhere.
 */
export const STRANGE = [
  undefined,
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 53,
  "",
  "x",
  "x".repeat(2000),
  [],
  [null],
  {},
  { type: "x" },
];

type Path = readonly (string | number)[];

/** Every place of a body, the body itself first. */
export function pathsOf(value: unknown, at: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [at];
  return [at, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...at, key]))];
}

/** The body with another value in one place; without the place where the value is undefined. */
export function put(value: unknown, [key, ...rest]: Path, other: unknown): unknown {
  if (key === undefined) return other;
  if (Array.isArray(value)) return value.map((entry, i) => (i === Number(key) ? put(entry, rest, other) : entry));
  const inner = value as Readonly<Record<string, unknown>>;
  return { ...inner, [key]: put(inner[key], rest, other) };
}
