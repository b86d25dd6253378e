/**
 * Digests of keys that were found before: a keyed digest costs several times a plain one, and callers come back.
 *
 * Invariants: what is kept is a plain digest under a salt of this process, never a key; it leads to the row of the keyed
 * digest and to nothing else, so what is known of a key is looked up at every call, and a withdrawn key stops at once;
 * only what has opened something is kept, so that nobody fills it by guessing; a plain digest of 256 bits stands for one
 * text only, so nobody gets another's place. Bounded; what came back lately stays. Caller: keys.ts.
 */
import { hash, randomBytes } from "node:crypto";
import { Recent } from "#base/recent.ts";

/** Of the table of keys; a digest's row stays. */
interface Row {
  readonly row: number;
}

/** Goes with a key that is presented again and again: the name under which its digest is kept. */
export interface KeptName {
  name: string | undefined;
}

const MOST = 16_384;

export class DigestCache {
  readonly #salt = randomBytes(32).toString("hex");
  readonly #known = new Recent<string, Row>(MOST);

  /** The name under which a key's digest is kept. @param kept of the same key */
  nameOf(key: string, kept?: KeptName): string {
    if (kept?.name !== undefined) return kept.name;
    const name = hash("sha256", this.#salt + key, "hex");
    if (kept !== undefined) kept.name = name;
    return name;
  }

  /** @returns undefined: it is not kept */
  rowOf(name: string): number | undefined {
    return this.#known.get(name)?.row;
  }

  keep(name: string, row: number): void {
    this.#known.set(name, { row });
  }
}
