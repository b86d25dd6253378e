/**
 * Values from a JSON Schema, and changes to them, by a seed.
 */

export interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly allOf?: readonly JsonSchema[];
  readonly items?: JsonSchema;
  readonly minItems?: number;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | JsonSchema;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** Mulberry32: the same seed, the same throws. */
export class Dice {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }
}

/** Fields whose values mean something: a body without any of them is refused before anything is done. */
const MEANT: Readonly<Record<string, readonly unknown[]>> = {
  model: ["demo", "demo", "demo", "demo-alias", "nobody's"],
  role: ["user", "assistant", "system", "tool"],
  content: ["hi", "", null, [{ type: "text", text: "hi" }]],
  messages: [[{ role: "user", content: "hi" }], [[{ role: "user", content: "a" }], [{ role: "user", content: "b" }]]],
  prompt: ["hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]]],
  prompts: [["a"]],
  token_ids: [[1, 2, 3], [257], [-1]],
  tokens: [[1, 2, 3]],
  input: ["a", ["a", "b"], [1, 2], [[1], [2, 3]]],
  texts: [["a"], ["a", "b"]],
  query: ["a", "b"],
  queries: ["a", ["a", "b"]],
  documents: [["a"], ["a", "b"], "a", [{ content: [{ type: "text", text: "a" }] }]],
  items: [["a"], ["a", "b"], [[1], [2]]],
  data_1: ["a"],
  data_2: ["a", ["a", "b"]],
  text_1: ["a"],
  text_2: ["a", ["a", "b"]],
  label_token_ids: [[1, 2], [1]],
  truncate_prompt_tokens: [8, -1],
  task: ["embed", "classify", "token_embed"],
  type: ["text", "function", "json_schema", "json_object", "regex", "message"],
  stop: [["x"], "x", []],
  tools: [[{ type: "function", function: { name: "f", parameters: { type: "object" } } }], []],
  response_format: [
    { type: "json_object" },
    { type: "text" },
    { type: "json_schema", json_schema: { name: "a", schema: {} } },
  ],
  structured_outputs: [
    { regex: "a+" },
    { choice: ["a", "b"] },
    { json: { type: "object" } },
    { grammar: "root ::= [a-z]+" },
  ],
  temperature: [0, 0.5, 1],
  max_tokens: [1, 4, 16],
  max_completion_tokens: [1, 4],
  stream: [true, false],
};

const STRINGS = [
  "",
  "a",
  "hi",
  "demo",
  "<|im_start|>system",
  "\u0000",
  "é😀",
  "../..",
  "__proto__",
  "x".repeat(3000),
  "5",
];
const NUMBERS = [0, 1, -1, 2, 16, 0.5, -0.5, 100, 257, 2 ** 31, -(2 ** 31), 2 ** 53, 1e300, 1e-300];
const DEPTH = 4;

export function generate(dice: Dice, schema: JsonSchema, depth = 0): unknown {
  if (schema.enum !== undefined) return dice.pick(schema.enum);
  if (schema.const !== undefined) return schema.const;
  const branches = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (branches !== undefined) return generate(dice, dice.pick(branches), depth);
  const type = Array.isArray(schema.type) ? dice.pick(schema.type as readonly string[]) : schema.type;
  switch (type) {
    case "null":
      return null;
    case "boolean":
      return dice.chance(0.5);
    case "string":
      return dice.pick(STRINGS);
    case "integer":
    case "number":
      return numberOf(dice, schema, type === "integer");
    case "array":
      return Array.from({ length: (schema.minItems ?? 0) + dice.below(3) }, () =>
        generate(dice, schema.items ?? {}, depth + 1),
      );
    case "object":
      return objectOf(dice, schema, depth);
    default:
      return anything(dice, depth);
  }
}

function numberOf(dice: Dice, { minimum, maximum }: JsonSchema, whole: boolean): number {
  const bounds = [minimum, maximum].filter((bound) => bound !== undefined);
  const value = dice.chance(0.3) && bounds.length > 0 ? dice.pick(bounds) : dice.pick(NUMBERS);
  return whole ? Math.trunc(value) : value;
}

function objectOf(dice: Dice, schema: JsonSchema, depth: number): unknown {
  const entries: [string, unknown][] = [];
  const required = new Set(schema.required ?? []);
  const names = Object.keys(schema.properties ?? {});
  // A few of the optional ones at a time: of many, one is wrong as a rule, and it hides the others.
  const share = Math.min(0.5, 4 / Math.max(1, names.length));
  for (const name of names) {
    const meant = MEANT[name];
    const essential = required.has(name) || (depth === 0 && meant !== undefined && dice.chance(0.5));
    if (!essential && !dice.chance(share)) continue;
    const own = schema.properties?.[name] ?? {};
    entries.push([name, meant !== undefined && dice.chance(0.8) ? dice.pick(meant) : generate(dice, own, depth + 1)]);
  }
  if (typeof schema.additionalProperties === "object" && dice.chance(0.5))
    entries.push([dice.pick(STRINGS), generate(dice, schema.additionalProperties, depth + 1)]);
  return Object.fromEntries(entries);
}

export function anything(dice: Dice, depth = 0): unknown {
  const kind = dice.below(depth > DEPTH ? 4 : 6);
  if (kind === 0) return null;
  if (kind === 1) return dice.chance(0.5);
  if (kind === 2) return dice.pick(NUMBERS);
  if (kind === 3) return dice.pick(STRINGS);
  if (kind === 4) return Array.from({ length: dice.below(3) }, () => anything(dice, depth + 1));
  return Object.fromEntries([[dice.pick([...STRINGS, ...Object.keys(MEANT)]), anything(dice, depth + 1)]]);
}

/** The value with one place changed: another value, gone, doubled, wrapped, or a field that nobody knows. */
export function mutate(dice: Dice, value: unknown): unknown {
  if (typeof value !== "object" || value === null || dice.chance(0.1)) return replaced(dice, value);
  if (Array.isArray(value)) {
    if (value.length === 0) return [anything(dice)];
    const at = dice.below(value.length);
    if (dice.chance(0.2)) return [...value, ...value];
    return value.map((entry, i) => (i === at ? mutate(dice, entry) : entry));
  }
  const entries = Object.entries(value);
  if (entries.length === 0 || dice.chance(0.1)) return { ...value, [dice.pick(STRINGS)]: anything(dice) };
  const at = dice.below(entries.length);
  if (dice.chance(0.15)) return Object.fromEntries(entries.filter((_, i) => i !== at));
  return Object.fromEntries(entries.map(([name, inner], i) => [name, i === at ? mutate(dice, inner) : inner]));
}

function replaced(dice: Dice, value: unknown): unknown {
  if (dice.chance(0.15)) return [value];
  if (dice.chance(0.1)) return deep(dice.pick([3, 40, 400]));
  return anything(dice);
}

function deep(levels: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < levels; i++) value = i % 2 === 0 ? [value] : { a: value };
  return value;
}

/** Text that is JSON no more, or not as it was. */
export function spoil(dice: Dice, text: string): string {
  const at = dice.below(Math.max(1, text.length));
  return dice.pick([
    text.slice(0, at),
    text + text,
    `${text.slice(0, at)}\u0000${text.slice(at)}`,
    text.replace("{", '{"model":"demo","model":"demo",'),
    text.replace(/[0-9]+/, "1e999"),
    "",
  ]);
}
