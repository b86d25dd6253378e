/**
 * A YAML file that the operator wrote, checked against a schema; errors name the line and the field.
 *
 * Invariants: a file that others can write is refused, as it says who may do what; aliases are bounded, keys unique.
 * Called by what reads such files.
 */
import { hash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { type Document, isNode, isScalar, LineCounter, parseDocument, visit } from "yaml";
import type { z } from "zod";
import { isOpen, OTHERS_WRITE } from "#base/owner.ts";
import { StartupError } from "./startup-error.ts";

const MAX_BYTES = 1 << 20;
const MAX_ALIASES = 16;
const MAX_ERRORS = 5;
const MAX_SHOWN = 100;

/** @throws StartupError */
export function operatorYaml<T>(path: string, schema: z.ZodType<T>): T {
  return operatorYamlFile(path, schema).value;
}

/** @returns also the SHA-256 of the file's bytes, hex. @throws StartupError */
export function operatorYamlFile<T>(
  path: string,
  schema: z.ZodType<T>,
): { readonly value: T; readonly sha256: string } {
  const bytes = bytesOf(path);
  return { value: conforming(path, bytes.toString("utf8"), schema), sha256: hash("sha256", bytes, "hex") };
}

/** @param name of what it is called in what is said. @throws StartupError */
export function conforming<T>(path: string, text: string, schema: z.ZodType<T>): T {
  const lines = new LineCounter();
  // The parser would compare each key of a map with every other one: a text of many keys is minutes of work to it.
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, strict: true });
  const [fault] = [...document.errors, ...document.warnings];
  if (fault !== undefined) throw new StartupError(`${path}: ${fault.message.split("\n")[0]}`);
  const parsed = schema.safeParse(parsedValue(document, path));
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(innermost);
  const told = issues.slice(0, MAX_ERRORS).map((issue) => `  ${describe(issue, path, document, lines)}`);
  const more = issues.length > MAX_ERRORS ? [`  and ${issues.length - MAX_ERRORS} more`] : [];
  throw new StartupError([`${path} is not right:`, ...told, ...more].join("\n"));
}

function bytesOf(path: string): Buffer {
  try {
    const found = statSync(path);
    if (!found.isFile() || found.size > MAX_BYTES) throw new StartupError(`${path} is no file of at most 1 MiB`);
    if (isOpen(found, OTHERS_WRITE))
      throw new StartupError(`${path} can be written by others: run chmod go-w on it, after a look at what is in it`);
    return readFileSync(path);
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}

function parsedValue(document: Document, path: string): unknown {
  try {
    requireUniqueKeys(document);
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    throw new StartupError(`${path}: ${error instanceof Error ? error.message : error}`);
  }
}

/** @throws Error naming one that stands twice */
function requireUniqueKeys(document: Document): void {
  visit(document, {
    Map: (_, { items }) => {
      const names = new Set<string>();
      for (const { key } of items) {
        // As it will be called in the object.
        const name = isScalar(key) ? String(key.value ?? "") : String(key);
        if (names.has(name)) throw new Error(`Map keys must be unique: ${JSON.stringify(name.slice(0, MAX_SHOWN))}`);
        names.add(name);
      }
    },
  });
}

interface Found {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Of the alternatives that a field has, the one that the value came nearest to says more than "invalid". */
function innermost(issue: z.core.$ZodIssue): Found {
  const path = issue.path;
  if (issue.code !== "invalid_union") return { path, message: issue.message };
  const inner = issue.errors.flatMap((list) => list.map(innermost));
  const deepest = inner.reduce<Found | undefined>(
    (best, each) => (each.path.length > (best?.path.length ?? 0) ? each : best),
    undefined,
  );
  if (deepest !== undefined) return { path: [...path, ...deepest.path], message: deepest.message };
  return { path, message: [...new Set(inner.map(({ message }) => message))].join("; or ") };
}

function describe({ path, message }: Found, file: string, document: Document, lines: LineCounter): string {
  const field = path.map(String).join(".");
  return `${file}:${lineOf(path, document, lines)}: ${field === "" ? "" : `${field}: `}${message}`;
}

/** Of the field, or of what should hold it. */
function lineOf(path: readonly PropertyKey[], document: Document, lines: LineCounter): number {
  for (let depth = path.length; depth > 0; depth--) {
    const node: unknown = document.getIn(path.slice(0, depth), true);
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
  }
  return 1;
}
