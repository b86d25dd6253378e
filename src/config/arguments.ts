/**
 * The command line of `serve`, as raw values by setting: `-` and `_` alike, `--flag=value`, `--flag value`,
 * repeated flags, vLLM's space-separated lists, `--no-flag` for switches. Pure.
 */
import type { Engine } from "./engines.ts";
import { SettingError } from "./kinds.ts";
import { flagOf, type SettingName, settingRows } from "./settings.ts";
import { HOLES, PASSED, type PassedShape, SHARED } from "./vllm-engine.ts";
import { IGNORED, REFUSED } from "./vllm-flags.ts";

export interface ParsedArguments {
  readonly values: ReadonlyMap<SettingName, unknown>;
  /** What is no flag, in order: the model. */
  readonly positional: readonly string[];
  readonly config: string | undefined;
  /** Words for vLLM's command line; none where it is not the engine. */
  readonly passed: readonly string[];
  readonly warnings: readonly string[];
}

const BY_FLAG = new Map<string, SettingName>(
  settingRows().flatMap(([name, row]) => [flagOf(name), ...(row.flags ?? [])].map((flag) => [flag, name] as const)),
);
const ROWS = new Map(settingRows());

/** The last value of a flag, read before the rest is: what the rest means depends on it. */
export function peek(argv: readonly string[], flag: string): string | undefined {
  return argv
    .map((word, at) => {
      if (!word.startsWith("--")) return undefined;
      const { flag: name, inline } = split(word);
      return name === flag ? (inline ?? argv[at + 1]) : undefined;
    })
    .findLast((value) => value !== undefined);
}

/** @throws SettingError naming the flag, and the nearest known one */
export function parseArguments(argv: readonly string[], engine: Engine = "llama"): ParsedArguments {
  const values = new Map<SettingName, unknown>();
  const positional: string[] = [];
  const passed: string[] = [];
  const warnings: string[] = [];
  let config: string | undefined;
  const queue = [...argv];
  for (let word = queue.shift(); word !== undefined; word = queue.shift()) {
    if (!word.startsWith("--") || word === "--") {
      if (word.startsWith("-") && word.length > 1 && word !== "--")
        throw new SettingError(`${word}: flags begin with two dashes`);
      if (word !== "--") positional.push(word);
      continue;
    }
    const { flag, inline } = split(word);
    if (flag === "config" || flag === "model") {
      const value = inline ?? take(queue, flag);
      if (flag === "config") config = value;
      else positional.unshift(value);
    } else if (engine === "vllm") {
      const words = handedOn(flag, inline, queue, positional.length > 0);
      passed.push(...(words ?? []));
      // What this server reads as well, it reads from the same words.
      if (words === undefined) assign(values, flag, inline, queue, positional.length > 0);
      else if (SHARED.has(flag.replace(/^no-/, ""))) assign(values, flag, undefined, [...words.slice(1)], true);
    } else if (!foreign(flag, inline, queue, warnings)) assign(values, flag, inline, queue, positional.length > 0);
  }
  return { values, positional, config, passed, warnings };
}

function split(word: string): { flag: string; inline: string | undefined } {
  const equals = word.indexOf("=");
  const name = equals < 0 ? word.slice(2) : word.slice(2, equals);
  return { flag: name.replaceAll("_", "-").toLowerCase(), inline: equals < 0 ? undefined : word.slice(equals + 1) };
}

function take(queue: string[], flag: string): string {
  const value = queue.shift();
  if (value === undefined || value.startsWith("--")) throw new SettingError(`--${flag} takes a value`);
  return value;
}

/** A flag of vLLM's with what belongs to it, as vLLM reads it; undefined: it is none. */
function handedOn(
  flag: string,
  inline: string | undefined,
  queue: string[],
  hasModel: boolean,
): readonly string[] | undefined {
  const hole = HOLES.get(flag.replace(/^no-/, ""));
  if (hole !== undefined) {
    // What it is without it is what it stays.
    if (flag.startsWith("no-")) return [];
    throw new SettingError(`--${flag} is not handed on to vLLM: ${hole}`);
  }
  const shape: PassedShape | undefined = PASSED.get(flag);
  if (shape === undefined) return undefined;
  const word = `--${flag}`;
  if (shape === "switch") {
    if (inline !== undefined) throw new SettingError(`--${flag} takes no value`);
    return [word];
  }
  const words = [word, inline ?? take(queue, flag)];
  while (shape === "list" && hasModel && inline === undefined && queue[0] !== undefined && !queue[0].startsWith("--"))
    words.push(queue.shift() ?? "");
  return words;
}

/** vLLM's flags that are not ours. @returns whether it was one */
function foreign(flag: string, inline: string | undefined, queue: string[], warnings: string[]): boolean {
  const reason = REFUSED.get(flag);
  if (reason !== undefined)
    throw new SettingError(`--${flag} is a vLLM flag that this server does not take: ${reason}`);
  const shape = IGNORED.get(flag);
  if (shape === undefined && PASSED.has(flag) && !BY_FLAG.has(flag.replace(/^no-/, "")) && !BY_FLAG.has(flag))
    throw new SettingError(`--${flag} is for --engine vllm`);
  if (shape === undefined) return false;
  if (shape === "value" && inline === undefined) take(queue, flag);
  warnings.push(`--${flag} is taken for compatibility with vLLM and has no effect here`);
  return true;
}

function assign(
  values: Map<SettingName, unknown>,
  flag: string,
  inline: string | undefined,
  queue: string[],
  hasModel: boolean,
): void {
  const off = flag.startsWith("no-") && !BY_FLAG.has(flag);
  const name = BY_FLAG.get(off ? flag.slice(3) : flag);
  const row = name === undefined ? undefined : ROWS.get(name);
  if (name === undefined || row === undefined)
    throw new SettingError(`--${flag} is not a flag${hint(flag, [...BY_FLAG.keys(), "config"], "--")}`);
  if (row.placeholder === undefined) {
    if (off && inline !== undefined) throw new SettingError(`--${flag} takes no value`);
    values.set(name, off ? false : (inline ?? true));
    return;
  }
  if (off) throw new SettingError(`--${flag}: --${flag.slice(3)} is not a switch`);
  if (row.many === undefined) {
    values.set(name, inline ?? take(queue, flag));
    return;
  }
  const items = [inline ?? take(queue, flag)];
  // vLLM's lists go on to the next flag; before the model is named, the next word may be the model.
  while (hasModel && inline === undefined && queue[0] !== undefined && !queue[0].startsWith("--"))
    items.push(queue.shift() ?? "");
  values.set(name, [...((values.get(name) as string[] | undefined) ?? []), ...items]);
}

/** ` (did you mean --port?)`, when something is near. */
export function hint(word: string, known: readonly string[], prefix = ""): string {
  let best: string | undefined;
  let distance = Math.max(2, Math.floor(word.length / 3)) + 1;
  for (const candidate of known) {
    const d = levenshtein(word, candidate);
    if (d < distance) [best, distance] = [candidate, d];
  }
  return best === undefined ? "" : ` (did you mean ${prefix}${best}?)`;
}

function levenshtein(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
