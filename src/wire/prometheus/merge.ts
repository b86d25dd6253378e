/**
 * Expositions of several servers as one: Prometheus' text format 0.0.4. Pure. Callers: serving's upstreams.
 *
 * Invariants: a family stands together and is described once; where servers do not agree what a family is, or one's
 * family has a name that a sample of another's has, these are printed without a type, a name each: what one server says
 * changes no value of another's, and takes none away (Wall: T126).
 */
import { type Family, type FamilySample, type FamilyType, namesOf } from "./family.ts";

interface Merged {
  readonly name: string;
  readonly types: Set<FamilyType>;
  help: string | undefined;
  readonly samples: FamilySample[];
}

/** @param sources each with labels of its own */
export function printFamilies(sources: Iterable<readonly Family[]>): string {
  const merged = new Map<string, Merged>();
  for (const families of sources)
    for (const { name, type, help, samples } of families) {
      const known = merged.get(name) ?? { name, types: new Set(), help: undefined, samples: [] };
      merged.set(name, known);
      known.types.add(type);
      known.help ??= help;
      for (const sample of samples) known.samples.push(sample);
    }
  const claims = claimsOf(merged.values());
  const plain: FamilySample[] = [];
  const lines: string[] = [];
  for (const family of merged.values()) {
    const [type, another] = family.types;
    const disputed = another !== undefined || everyName(family).some((name) => (claims.get(name) ?? 0) > 1);
    if (type === undefined || disputed) for (const sample of family.samples) plain.push(sample);
    else printFamily(lines, family, type);
  }
  printPlain(lines, plain);
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

function everyName({ name, types }: Merged): readonly string[] {
  return [...new Set([...types].flatMap((type) => namesOf({ name, type })))];
}

/** How many families have a name for theirs. */
function claimsOf(families: Iterable<Merged>): ReadonlyMap<string, number> {
  const claims = new Map<string, number>();
  for (const family of families) for (const name of everyName(family)) claims.set(name, (claims.get(name) ?? 0) + 1);
  return claims;
}

function printFamily(lines: string[], { name, help, samples }: Merged, type: FamilyType): void {
  if (help !== undefined) lines.push(`# HELP ${name} ${help}`);
  if (type !== "untyped") lines.push(`# TYPE ${name} ${type}`);
  for (const { line } of samples) lines.push(line);
}

function printPlain(lines: string[], samples: readonly FamilySample[]): void {
  const byName = new Map<string, string[]>();
  for (const { name, line } of samples) {
    const known = byName.get(name) ?? [];
    byName.set(name, known);
    known.push(line);
  }
  for (const own of byName.values()) for (const line of own) lines.push(line);
}
