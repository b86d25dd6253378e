/**
 * Reading HTTP header lists as they came (`[name, value, name, value, …]`, Node's `rawHeaders`).
 *
 * Why not `message.headers`: it keeps the first of several equal headers and joins others, so that "sent twice",
 * the mark of an attempt to have two readers disagree, cannot be seen any more.
 *
 * A list may stand for many requests, of a client that says the same again on its connection; what was found in it is kept
 * with it then, and goes when it goes.
 */

const NONE: readonly string[] = [];

/** Lists that stand for many requests. Nobody changes them. */
const lasting = new WeakSet<readonly string[]>();

/** A list of headers will come again, as the same object. */
export function markLasting(rawHeaders: readonly string[]): void {
  lasting.add(rawHeaders);
}

/** What one reader found in lists that last. It may depend on nothing but the list. */
export class FoundInHeaders<T> {
  readonly #kept = new WeakMap<readonly string[], T>();

  of(rawHeaders: readonly string[]): T | undefined {
    return this.#kept.get(rawHeaders);
  }

  /** Where the list lasts: else it would be kept for nothing. */
  keep(rawHeaders: readonly string[], found: T): void {
    if (lasting.has(rawHeaders)) this.#kept.set(rawHeaders, found);
  }
}

/** All values of a header. `name` in lower case. */
export function headerValues(rawHeaders: readonly string[], name: string): readonly string[] {
  let values: string[] | undefined;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const candidate = rawHeaders[at] as string;
    // Lengths first: most headers are turned away without making a lower-case copy.
    if (candidate.length !== name.length || candidate.toLowerCase() !== name) continue;
    if (values === undefined) values = [rawHeaders[at + 1] as string];
    else values.push(rawHeaders[at + 1] as string);
  }
  return values ?? NONE;
}
