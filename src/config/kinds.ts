/**
 * The kinds of values a setting can have: how text from a flag, a variable or a file becomes a bounded value.
 *
 * Every parse either gives a value inside its bounds or throws SettingError with what would have been right.
 */
import { JsonError, parseJson } from "#base/json.ts";

export class SettingError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "SettingError";
  }
}

/** One row of the table. T is what the program sees. */
export interface Setting<T> {
  readonly section: string;
  readonly doc: string;
  readonly fallback: T;
  /** How the default is printed, where the value itself says little. */
  readonly fallbackDoc?: string;
  /** Shown as `--flag <placeholder>`; absent for switches. */
  readonly placeholder?: string;
  /** The flag may be repeated, or take several values. */
  readonly many?: true;
  /** Other variables that mean it, besides CASTELLAN_<NAME>: vLLM's, or a convention's. */
  readonly variables?: readonly string[];
  /** Other flags that mean it, kebab-case without dashes. */
  readonly flags?: readonly string[];
  /** Never printed; on the command line it works and warns. */
  readonly secret?: true;
  /** What wall a value other than the default may loosen. */
  readonly loosens?: string;
  /** Settings that, when they are on or given, keep that wall up. */
  readonly unless?: readonly string[];
  readonly parse: (raw: unknown) => T;
}

type Row<T> = Omit<Setting<T>, "parse" | "fallback" | "placeholder" | "many">;

function text(raw: unknown): string {
  if (typeof raw === "string") return raw;
  if (typeof raw === "number" || typeof raw === "boolean") return String(raw);
  throw new SettingError("takes a text");
}

export function string<D extends string | undefined>(
  fallback: D,
  placeholder: string,
  row: Row<string | D>,
): Setting<string | D> {
  return { ...row, fallback, placeholder, parse: text };
}

export function switched(fallback: boolean, row: Row<boolean>): Setting<boolean> {
  return { ...row, fallback, parse: boolean };
}

function boolean(raw: unknown): boolean {
  if (typeof raw === "boolean") return raw;
  const word = text(raw).trim().toLowerCase();
  if (["1", "true", "yes", "on"].includes(word)) return true;
  if (["0", "false", "no", "off", ""].includes(word)) return false;
  throw new SettingError("is a switch: true or false");
}

export function integer<D extends number | undefined>(
  fallback: D,
  bounds: readonly [min: number, max: number],
  row: Row<number | D>,
): Setting<number | D> {
  return { ...row, fallback, placeholder: "n", parse: (raw) => within(whole(raw), bounds) };
}

function whole(raw: unknown): number {
  const value = Number(text(raw).replaceAll("_", ""));
  if (!Number.isSafeInteger(value) || text(raw).trim() === "") throw new SettingError("takes a whole number");
  return value;
}

function within(value: number, [min, max]: readonly [number, number]): number {
  if (value < min || value > max) throw new SettingError(`lies between ${min} and ${max}`);
  return value;
}

const SIZE = /^(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib)?$/i;
const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  k: 1e3,
  kb: 1e3,
  kib: 1024,
  m: 1e6,
  mb: 1e6,
  mib: 1024 ** 2,
  g: 1e9,
  gb: 1e9,
  gib: 1024 ** 3,
};

/** `64MiB`, `1.5GB`, `1048576`. */
export function bytes<D extends number | undefined>(
  fallback: D,
  bounds: readonly [number, number],
  row: Row<number | D>,
): Setting<number | D> {
  return {
    ...row,
    fallback,
    placeholder: "size",
    parse: (raw) => {
      const match = SIZE.exec(text(raw).trim());
      if (match === null) throw new SettingError("takes a size such as 64MiB");
      return within(Math.round(Number(match[1]) * (UNITS[(match[2] ?? "b").toLowerCase()] ?? 1)), bounds);
    },
  };
}

const DURATION = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/i;
const SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600 };

/** Seconds: `30`, `1.5`, `500ms`, `2m`. */
export function seconds(fallback: number, bounds: readonly [number, number], row: Row<number>): Setting<number> {
  return {
    ...row,
    fallback,
    placeholder: "seconds",
    parse: (raw) => {
      const match = DURATION.exec(text(raw).trim());
      if (match === null) throw new SettingError("takes a duration such as 30, 500ms or 2m");
      return within(Number(match[1]) * (SECONDS[(match[2] ?? "s").toLowerCase()] ?? 1), bounds);
    },
  };
}

/** Tokens as vLLM takes them: `4096`, `32k` (thousand), `32K` (1024); `auto` and -1 mean undefined. */
export function tokens(bounds: readonly [number, number], row: Row<number | undefined>): Setting<number | undefined> {
  return {
    ...row,
    fallback: undefined,
    placeholder: "tokens",
    parse: (raw) => {
      const spelled = text(raw).trim();
      if (spelled === "auto" || spelled === "-1") return undefined;
      const match = /^(\d+(?:\.\d+)?)([kKmM])?$/.exec(spelled);
      if (match === null) throw new SettingError("takes a number of tokens such as 4096, 32k or auto");
      const unit = { k: 1000, K: 1024, m: 1e6, M: 1024 ** 2 }[match[2] ?? ""] ?? 1;
      return within(Math.round(Number(match[1]) * unit), bounds);
    },
  };
}

export function choice<const C extends string>(fallback: C, choices: readonly C[], row: Row<C>): Setting<C> {
  return {
    ...row,
    fallback,
    placeholder: choices.join("|"),
    parse: (raw) => {
      const found = choices.find((candidate) => candidate === text(raw));
      if (found === undefined) throw new SettingError(`is one of ${choices.join(", ")}`);
      return found;
    },
  };
}

/** Several texts; empty ones are dropped (vLLM does the same with keys). */
export function list(placeholder: string, row: Row<readonly string[]>): Setting<readonly string[]> {
  return {
    ...row,
    fallback: [],
    placeholder,
    many: true,
    parse: (raw) => (Array.isArray(raw) ? raw : [raw]).map(text).filter((item) => item !== ""),
  };
}

const MAX_WEIGHT = 1000;

/** `name=weight`, several; a weight lies in (0, 1000]. */
export function weights(
  placeholder: string,
  row: Row<ReadonlyMap<string, number>>,
): Setting<ReadonlyMap<string, number>> {
  return {
    ...row,
    fallback: new Map(),
    placeholder,
    many: true,
    parse: (raw) =>
      new Map(raw instanceof Map ? raw : (Array.isArray(raw) ? raw : [raw]).map((item) => weight(text(item)))),
  };
}

function weight(item: string): readonly [string, number] {
  const match = /^(.+)=(\d+(?:\.\d+)?)$/.exec(item.trim());
  const value = Number(match?.[2]);
  if (match === null || value <= 0 || value > MAX_WEIGHT)
    throw new SettingError(`takes name=weight, with a weight above 0 and up to ${MAX_WEIGHT}`);
  return [match[1] as string, value];
}

/** `3,1`: numbers with commas between them. */
export function numbers(bounds: readonly [number, number], row: Row<readonly number[]>): Setting<readonly number[]> {
  return {
    ...row,
    fallback: [],
    placeholder: "n,n",
    parse: (raw) => (Array.isArray(raw) ? raw : text(raw).split(",")).map((item) => within(decimal(item), bounds)),
  };
}

function decimal(raw: unknown): number {
  const value = Number(text(raw));
  if (!Number.isFinite(value) || text(raw).trim() === "") throw new SettingError("takes numbers such as 3,1");
  return value;
}

/** A structure, from the file or as JSON. Whoever uses it checks what is in it. */
export function structure(row: Row<unknown>): Setting<unknown> {
  return {
    ...row,
    fallback: undefined,
    placeholder: "json",
    parse: (raw) => {
      if (typeof raw !== "string") return raw;
      try {
        return parseJson(raw);
      } catch (error) {
        if (error instanceof JsonError) throw new SettingError(`is not JSON: ${error.message}`);
        throw error;
      }
    },
  };
}
