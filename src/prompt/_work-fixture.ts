/**
 * Cuts texts for the parsers' tests, and counts the characters that code looks at. Tests only.
 */

/** Cuts `text` at the given places. */
export function cut(text: string, places: readonly number[]): string[] {
  const at = [...new Set(places.map((place) => place % (text.length + 1)))].sort((a, b) => a - b);
  return [...at, text.length].map((end, i) => text.slice(i === 0 ? 0 : at[i - 1], end));
}

/** About as a model's tokens come. */
export function inPieces(text: string): readonly string[] {
  return text.match(/.{1,4}/gs) ?? [];
}

/** What a primitive walks: called behind it, with where an expression began. */
type Cost = (call: { self: unknown; args: readonly unknown[]; result: unknown; from: number }) => number;

const length = (value: unknown): number => (typeof value === "string" ? value.length : 0);
const whole: Cost = ({ self }) => length(self);
/** What was cut off, and a look at what was not. */
const trimmed: Cost = ({ self, result }) => length(self) - length(result) + 2;
const searched: Cost = ({ self, args, result, from }) => {
  if (!(self instanceof RegExp) || !(self.global || self.sticky)) return length(args[0]);
  if (result === null) return self.sticky ? 1 : length(args[0]) - from;
  return self.lastIndex - from;
};

/**
 * Characters that strings are asked to walk while `run` runs: what searches, trims, splits and expressions see of them. A
 * walk over a growing text with every piece of it shows as a square.
 */
export function workOf(run: () => void): number {
  let work = 0;
  const restore: (() => void)[] = [];
  const wrap = <O extends object>(owner: O, names: readonly (keyof O & string)[], cost: Cost): void => {
    for (const name of names) {
      const original = owner[name] as (...args: unknown[]) => unknown;
      const counted = function (this: unknown, ...args: unknown[]): unknown {
        const from = this instanceof RegExp ? this.lastIndex : 0;
        const result = original.apply(this, args);
        work += cost({ self: this, args, result, from });
        return result;
      };
      const put = (value: unknown) => Object.defineProperty(owner, name, { value, configurable: true, writable: true });
      put(counted);
      restore.push(() => put(original));
    }
  };
  wrap(String.prototype, ["split", "replace", "replaceAll", "endsWith", "includes", "indexOf", "lastIndexOf"], whole);
  wrap(String.prototype, ["trim", "trimStart", "trimEnd"], trimmed);
  wrap(String.prototype, ["startsWith"], ({ args }) => length(args[0]));
  wrap(RegExp.prototype, ["test", "exec"], searched);
  wrap(JSON, ["stringify", "parse"], ({ args }) => length(args[0]));
  try {
    run();
  } finally {
    for (const undo of restore) undo();
  }
  return work;
}
