/**
 * flag > variable > file > default, for every row of the table. An unknown flag or key is an error, an unknown variable a warning.
 *
 * Called by cli/.
 */
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { hint, parseArguments } from "./arguments.ts";
import type { Environment } from "./environment.ts";
import { type Setting, SettingError } from "./kinds.ts";
import { flagOf, type SettingName, type Settings, settingRows, variableOf } from "./settings.ts";

export type Source = "flag" | "variable" | "file" | "default";

export interface Resolved {
  readonly settings: Settings;
  readonly sources: ReadonlyMap<SettingName, Source>;
  /** The model as it was named; absent: the demo model. */
  readonly model: string | undefined;
  readonly warnings: readonly string[];
}

const MAX_CONFIG_BYTES = 1 << 20;
/** Loaded for those who have a file. */
const yaml = (): typeof import("yaml") => createRequire(import.meta.url)("yaml");

/** @throws SettingError, one line for people */
export function resolveSettings(argv: readonly string[], env: Environment): Resolved {
  const args = parseArguments(argv);
  const [model, extra] = args.positional;
  if (extra !== undefined) throw new SettingError(`one model is served at a time; ${extra} is too much`);
  const file = args.config === undefined ? new Map<string, unknown>() : readConfig(args.config);
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

/** Keys in kebab-case, snake_case or camelCase; `model` besides the table's names. */
function readConfig(path: string): Map<string, unknown> {
  const known = new Map(settingRows().map(([name]) => [flagOf(name), name as string] as const)).set("model", "model");
  const document = loadYaml(path);
  const values = new Map<string, unknown>();
  for (const [key, value] of Object.entries(document)) {
    const flag = flagOf(key.replace(/^[A-Z]/, (c) => c.toLowerCase())).replaceAll("_", "-");
    const name = known.get(flag);
    if (name === undefined)
      throw new SettingError(`${key} in the config file is not a setting${hint(flag, [...known.keys()])}`);
    if (values.has(name)) throw new SettingError(`${key} stands twice in the config file`);
    values.set(name, value);
  }
  return values;
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
