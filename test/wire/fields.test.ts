/**
 * Each field alone, on top of a body that is answered, on each route: it is honoured, it is refused by its name, or it
 * does nothing and docs/divergences.md says so. Nothing that a client writes is lost in silence.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { z } from "zod";
import { routes } from "#routes/index.ts";
import { ANSWERS } from "./fields/answers.ts";
import { DEFAULTS } from "./fields/defaults.ts";
import type { Body, Field, Surface } from "./fields/field.ts";
import { PARTS } from "./fields/parts.ts";
import { type Seen, type Walker, walker } from "./fields/walk.ts";
import { SURFACES } from "./fields.ts";

const DIVERGENCES = readFileSync(join(import.meta.dirname, "../../docs/divergences.md"), "utf8");

for (const surface of SURFACES)
  test(`${surface.route}: each field`, async (t) => {
    const send = await sender(surface, (close) => t.after(close));
    const plain = await send(surface.body);
    assert.equal(plain.status, 200, plain.text);
    const wrong: string[] = [];
    for (const [name, field] of Object.entries(surface.fields)) {
      const found = await check(send, surface, name, field);
      if (found !== undefined) wrong.push(`${name} is ${field.outcome}: ${found}`);
    }
    assert.deepEqual(wrong, []);
  });

for (const surface of SURFACES)
  test(`${surface.route}: a field that nobody knows is ${surface.unknown}`, async (t) => {
    const send = await sender(surface, (close) => t.after(close));
    const plain = await send(surface.body);
    const seen = await send({ ...surface.body, nobody_knows_it: within(surface, 1) });
    if (surface.unknown === "refused") assert.ok(seen.status === 400 && names(seen, "nobody_knows_it"), seen.text);
    else assert.equal(seen.trace, plain.trace);
  });

/** Routes of this server alone, and forms: test/http/admin.test.ts and test/wire/audio.test.ts have theirs. */
const ELSEWHERE = /^(?:GET \/v1\/responses\/|POST \/v1\/(?:files|audio)|\w+ \/admin\/)/;

test("every field that a route declares is in the data", () => {
  const declared = routes.flatMap(({ method, path, body, query }) => {
    const route = `${method} ${path}`;
    if (ELSEWHERE.test(route)) return [];
    return [body, query].flatMap((schema) => namesIn(schema).map((name) => `${route} ${name}`));
  });
  const written = SURFACES.flatMap(({ route, fields }) =>
    Object.keys(fields).map((name) => `${route} ${name.split(".")[0]}`),
  );
  assert.ok(declared.length > 300, String(declared.length));
  assert.deepEqual(
    declared.filter((name) => !written.includes(name)),
    [],
  );
});

function namesIn(schema: z.ZodType | undefined): readonly string[] {
  if (schema === undefined) return [];
  return Object.keys(z.toJSONSchema(schema, { io: "input", unrepresentable: "any" }).properties ?? {});
}

for (const [route, defaults] of Object.entries(DEFAULTS))
  test(`${route}: what is the default may be said`, async (t) => {
    const surface = surfaceOf(route);
    const send = await sender(surface, (close) => t.after(close));
    const plain = await send(surface.body);
    for (const [name, value] of Object.entries(defaults)) {
      const said = await send({ ...surface.body, [name]: value });
      assert.equal(said.trace, plain.trace, `${name}: ${JSON.stringify(value)}`);
    }
  });

for (const [route, paths] of Object.entries(ANSWERS))
  test(`${route}: what is printed`, async (t) => {
    const surface = surfaceOf(route);
    const send = await sender(surface, (close) => t.after(close));
    const { text } = await send(surface.body);
    const missing = paths.filter((path) => at(JSON.parse(text), path) === undefined);
    assert.deepEqual(missing, [], text);
  });

for (const [route, place, parts] of PARTS)
  test(`${route}: parts of ${place} that are no text are refused by their place`, async (t) => {
    const surface = surfaceOf(route);
    const send = await sender(surface, (close) => t.after(close));
    for (const part of parts) {
      const seen = await send(put(surface.body, place, [part]));
      assert.ok([400, 501].includes(seen.status), `${JSON.stringify(part)}: ${seen.status} ${seen.text}`);
      assert.match(seen.text, new RegExp(place.split(".").slice(-3).join("\\.")), seen.text);
    }
  });

function surfaceOf(route: string): Surface {
  const found = SURFACES.find((surface) => surface.route === route);
  assert.ok(found, route);
  return found;
}

function at(value: unknown, path: string): unknown {
  return path.split(".").reduce<unknown>((inside, name) => (inside as Body | null | undefined)?.[name], value);
}

type Send = (body: Body) => Promise<Seen>;

/** Operations change what the next one finds: each call of theirs has a server of its own. */
async function sender(surface: Surface, after: (close: () => Promise<void>) => void): Promise<Send> {
  const open = async (): Promise<Walker> => {
    const opened = await walker(surface.model);
    after(opened.close);
    return opened;
  };
  const own = surface.changes ? undefined : await open();
  return async (body) => (own ?? (await open())).send(surface, body);
}

/** @returns what is wrong */
async function check(send: Send, surface: Surface, name: string, field: Field): Promise<string | undefined> {
  const beside = merge(surface.body, field.beside);
  const without = await send(beside);
  const seen = await send(put(beside, name, field.value));
  // One of several fields may be what the body needs.
  if (without.status !== 200 && field.outcome !== "honoured") return `without it: ${without.status} ${without.text}`;
  if (field.outcome === "refused" || field.outcome === "absent")
    return REFUSALS[field.outcome].includes(seen.status) && names(seen, name)
      ? undefined
      : `${seen.status} ${seen.text}`;
  if (seen.status !== 200) return `${seen.status} ${seen.text}`;
  const same = seen.trace === without.trace;
  if (field.outcome === "ignored") {
    if (!same) return `something is another with it: ${seen.trace}`;
    return SAID.has(name.split(".").at(-1) ?? "") ? undefined : "docs/divergences.md does not say that it is";
  }
  if (field.outcome === "honoured" && same) return "nothing is another with it";
  const nonsense = await send(put(beside, name, within(surface, nonsenseFor(field.value))));
  return nonsense.status === 400 && names(nonsense, name)
    ? undefined
    : `nonsense in its place: ${nonsense.status} ${nonsense.text}`;
}

const REFUSALS: Readonly<Record<"refused" | "absent", readonly number[]>> = { refused: [400, 501], absent: [404] };

/** The names that stand where the document speaks of what has no effect. */
const SAID: ReadonlySet<string> = new Set(
  [
    ...(/\n### Taken and without effect\n(.*?)\n###? /s.exec(DIVERGENCES)?.[1] ?? "").split("\n"),
    ...DIVERGENCES.split("\n").filter((line) => /without effect/i.test(line)),
  ].flatMap((line) => [...line.matchAll(/`([a-z_]+)`/g)].map(([, name]) => name ?? "")),
);

function names({ text }: Seen, name: string): boolean {
  const { error, message } = JSON.parse(text) as {
    error?: { param?: string | null; message: string };
    message?: string;
  };
  const param = error?.param ?? undefined;
  return param === undefined
    ? new RegExp(`\\b${name}\\b`).test(error?.message ?? message ?? "")
    : param === name || param.startsWith(`${name}.`);
}

/** A query has no types but text. */
function within(surface: Surface, value: unknown): unknown {
  return surface.within === "query" ? "nonsense" : value;
}

/** Of a type that no field of that value has. */
function nonsenseFor(value: unknown): unknown {
  return typeof value === "object" ? 7 : { nonsense: true };
}

function isObject(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** null takes a field away. */
function merge(body: Body, more: Body): Body {
  const all = Object.entries(more).map(([name, value]): [string, unknown] => {
    const before = body[name];
    return [name, isObject(before) && isObject(value) ? merge(before, value) : value];
  });
  const merged = { ...body, ...Object.fromEntries(all) };
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null));
}

function put(body: Body, path: string, value: unknown): Body {
  return putAt(body, path.split("."), value) as Body;
}

function putAt(into: unknown, [name, ...rest]: readonly string[], value: unknown): unknown {
  if (name === undefined) return value;
  if (Array.isArray(into)) return into.map((entry, at) => (String(at) === name ? putAt(entry, rest, value) : entry));
  const before: Body = isObject(into) ? into : {};
  return { ...before, [name]: putAt(before[name], rest, value) };
}
