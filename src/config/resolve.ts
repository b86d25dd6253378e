/**
 * flag > variable > file > default, for every row of the table. An unknown flag or key is an error, an unknown variable a warning.
 *
 * Called by cli/.
 */
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { stringifyJson } from "#base/json.ts";
import { hint, parseArguments, peek } from "./arguments.ts";
import { ENGINES, type Engine } from "./engines.ts";
import type { Environment } from "./environment.ts";
import { type Setting, SettingError } from "./kinds.ts";
import { flagOf, type SettingName, type Settings, settingRows, variableOf } from "./settings.ts";
import { HOLES, PASSED, SHARED } from "./vllm-engine.ts";

export type Source = "flag" | "variable" | "file" | "default";

export interface Resolved {
  readonly settings: Settings;
  readonly sources: ReadonlyMap<SettingName, Source>;
  /** The model as it was named; absent: the demo model. */
  readonly model: string | undefined;
  /** Words for the command line of a vLLM that is the engine. */
  readonly passed: readonly string[];
  readonly warnings: readonly string[];
}

const MAX_CONFIG_BYTES = 1 << 20;
/** Loaded for those who have a file. */
const yaml = (): typeof import("yaml") => createRequire(import.meta.url)("yaml");

/** @throws SettingError, one line for people */
export function resolveSettings(argv: readonly string[], env: Environment): Resolved {
  const document = configOf(argv);
  const engine = engineOf(argv, env, document);
  const args = parseArguments(argv, engine);
  const [model, extra] = args.positional;
  if (extra !== undefined) throw new SettingError(`one model is served at a time; ${extra} is too much`);
  const { values: file, passed } = readConfig(document, engine);
  const warnings = [...args.warnings, ...unknownVariables(env)];
  const sources = new Map<SettingName, Source>();
  const values: Record<string, unknown> = {};
  for (const [name, row] of settingRows()) {
    const found = find(name, row, args.values, env, file);
    sources.set(name, found.source);
    values[name] = found.value;
    if (row.secret && found.source === "flag")
      warnings.push(
        `--${flagOf(name)} on the command line can be seen by other users of this machine; prefer ${variableOf(name)} or a file`,
      );
  }
  for (const [name, row] of settingRows()) {
    const changed = sources.get(name) !== "default" && values[name] !== row.fallback;
    const held = row.unless?.some((other) => values[other] !== undefined && values[other] !== false) ?? false;
    if (row.loosens !== undefined && changed && !held)
      warnings.push(`--${flagOf(name)} is not at its safe default: ${row.loosens}`);
  }
  const fromFile = file.get("model");
  return {
    settings: values as unknown as Settings,
    sources,
    model: model ?? (typeof fromFile === "string" ? fromFile : undefined),
    // The last of two counts, and the command line wins over the file.
    passed: [...passed, ...args.passed],
    warnings,
  };
}

function find(
  name: SettingName,
  row: Setting<unknown>,
  flags: ReadonlyMap<SettingName, unknown>,
  env: Environment,
  file: ReadonlyMap<string, unknown>,
): { value: unknown; source: Source } {
  if (flags.has(name)) return { value: parsed(`--${flagOf(name)}`, row, flags.get(name)), source: "flag" };
  for (const variable of [variableOf(name), ...(row.variables ?? [])]) {
    const value = env[variable];
    if (value !== undefined && value !== "") return { value: parsed(variable, row, value), source: "variable" };
  }
  if (file.has(name))
    return { value: parsed(`${flagOf(name)} in the config file`, row, file.get(name)), source: "file" };
  return { value: row.fallback, source: "default" };
}

function parsed(where: string, row: Setting<unknown>, raw: unknown): unknown {
  try {
    return row.parse(raw);
  } catch (error) {
    if (error instanceof SettingError) throw new SettingError(`${where} ${error.message}`);
    throw error;
  }
}

function configOf(argv: readonly string[]): Record<string, unknown> {
  const path = peek(argv, "config");
  return path === undefined ? {} : loadYaml(path);
}

/** Read before everything else, as the other words mean what they mean to it. */
function engineOf(argv: readonly string[], env: Environment, document: Record<string, unknown>): Engine {
  const said = peek(argv, "engine") ?? (env[variableOf("engine")] || document["engine"]);
  // Any other word is refused where the setting is read.
  return ENGINES.find((engine) => engine === said) ?? "llama";
}

interface ReadConfig {
  readonly values: ReadonlyMap<string, unknown>;
  readonly passed: readonly string[];
}

/** Keys in kebab-case, snake_case or camelCase; `model` besides the table's names, and vLLM's where it is the engine. */
function readConfig(document: Record<string, unknown>, engine: Engine): ReadConfig {
  const known = new Map(settingRows().map(([name]) => [flagOf(name), name as string] as const)).set("model", "model");
  const values = new Map<string, unknown>();
  const passed: string[] = [];
  for (const [key, value] of Object.entries(document)) {
    const flag = flagOf(key.replace(/^[A-Z]/, (c) => c.toLowerCase())).replaceAll("_", "-");
    const forVllm = engine === "vllm" ? wordsOf(flag, value) : undefined;
    passed.push(...(forVllm ?? []));
    if (forVllm !== undefined && !SHARED.has(flag)) continue;
    const name = known.get(flag);
    if (name === undefined)
      throw new SettingError(`${key} in the config file is not a setting${hint(flag, [...known.keys()])}`);
    if (values.has(name)) throw new SettingError(`${key} stands twice in the config file`);
    values.set(name, value);
  }
  return { values, passed };
}

/** A key of the file as words of vLLM's; undefined: it is none of them. */
function wordsOf(flag: string, value: unknown): readonly string[] | undefined {
  const hole = HOLES.get(flag);
  if (hole !== undefined && value !== false)
    throw new SettingError(`${flag} in the config file is not handed on to vLLM: ${hole}`);
  const shape = hole === undefined ? PASSED.get(flag) : "switch";
  if (shape === undefined) return undefined;
  if (shape === "switch") return hole !== undefined ? [] : [value === true ? `--${flag}` : `--no-${flag}`];
  const items = Array.isArray(value) && shape === "list" ? value : [value];
  return [`--${flag}`, ...items.map((item) => (typeof item === "object" ? stringifyJson(item) : String(item)))];
}

function loadYaml(path: string): Record<string, unknown> {
  try {
    if (statSync(path).size > MAX_CONFIG_BYTES) throw new SettingError("the config file is larger than 1 MiB");
    const document: unknown = yaml().parse(readFileSync(path, "utf8"), { maxAliasCount: 16, uniqueKeys: true });
    if (document === null) return {};
    if (typeof document !== "object" || Array.isArray(document))
      throw new SettingError("the config file is a map of settings");
    return document as Record<string, unknown>;
  } catch (error) {
    if (error instanceof SettingError) throw error;
    throw new SettingError(
      `the config file ${path} cannot be read: ${error instanceof Error ? error.message.split("\n")[0] : error}`,
    );
  }
}

/** A misspelt CASTELLAN_ variable would be lost silently. It warns, as other programs may share the prefix. */
function unknownVariables(env: Environment): string[] {
  const known = settingRows().map(([name]) => variableOf(name));
  return Object.keys(env)
    .filter((name) => name.startsWith("CASTELLAN_") && !known.includes(name))
    .map((name) => `${name} is not a setting${hint(name, known)}`);
}
