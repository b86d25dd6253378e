/**
 * Tokens that were verified a moment ago, so that the next request with the same one costs a digest and a look.
 *
 * Invariants: found by the digest of the exact text, never by what it says (an ECDSA signature has a second spelling:
 * that one is verified by itself); an entry counts until its token ends and only while the key that signed it is among
 * the issuer's keys; the number of entries is bounded, the oldest goes first.
 * Callers: verify.ts.
 */
import { hash } from "node:crypto";
import type { Principal } from "#core/principal.ts";

interface Entry {
  readonly principal: Principal;
  /** Unix milliseconds. */
  readonly until: number;
  /** Whether its key is still one of the issuer's. */
  readonly stands: () => boolean;
}

export class VerifiedTokens {
  readonly #capacity: number;
  readonly #entries = new Map<string, Entry>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#entries.size;
  }

  digest(token: string): string {
    return hash("sha256", token, "base64url");
  }

  find(digest: string, now: number): Principal | undefined {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return undefined;
    if (now < entry.until && entry.stands()) return entry.principal;
    this.#entries.delete(digest);
    return undefined;
  }

  keep(digest: string, entry: Entry): void {
    if (this.#capacity === 0) return;
    const { value: oldest, done } = this.#entries.keys().next();
    if (this.#entries.size >= this.#capacity && done !== true) this.#entries.delete(oldest);
    this.#entries.set(digest, entry);
  }
}
