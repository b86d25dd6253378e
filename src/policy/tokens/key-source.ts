/**
 * The keys of one issuer as they are now: loaded, kept, asked for again.
 *
 * Invariants: one attempt at a time, and one a cooldown whatever asks for it (a flood of made-up key ids makes one
 * request); a set that is due goes on being used while a newer one is fetched; when the issuer is away its last set is
 * used until `keepMs` and not a moment longer; a set that cannot be read replaces nothing.
 * Callers: verify.ts.
 */
import type { Log } from "#base/log.ts";
import type { TokenKeys } from "./key-set.ts";

export interface KeySourceOptions {
  /** For the log. */
  readonly issuer: string;
  readonly load: () => Promise<TokenKeys>;
  readonly refreshMs: number;
  readonly cooldownMs: number;
  readonly keepMs: number;
  readonly log: Log;
  /** Milliseconds that never go back. */
  readonly now?: () => number;
}

export class KeySource {
  readonly #options: KeySourceOptions;
  readonly #now: () => number;
  #keys: TokenKeys | undefined;
  #loadedAt = 0;
  #triedAt = Number.NEGATIVE_INFINITY;
  #loading: Promise<void> | undefined;

  constructor(options: KeySourceOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** The keys at hand; undefined: none, or too old. Starts a refresh where one is due. */
  current(): TokenKeys | undefined {
    const { refreshMs, keepMs } = this.#options;
    const age = this.#now() - this.#loadedAt;
    if (this.#keys === undefined || age >= refreshMs) void this.refresh();
    return age >= keepMs ? undefined : this.#keys;
  }

  /** After an attempt to have newer ones, if the cooldown allows one. */
  async newer(): Promise<TokenKeys | undefined> {
    await this.refresh();
    return this.current();
  }

  /** Never rejects. */
  refresh(): Promise<void> {
    if (this.#loading !== undefined) return this.#loading;
    if (this.#now() - this.#triedAt < this.#options.cooldownMs) return Promise.resolve();
    this.#triedAt = this.#now();
    this.#loading = this.#load().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #load(): Promise<void> {
    const { load, log, issuer } = this.#options;
    try {
      const keys = await load();
      if (keys.dropped.length > 0) log("warn", "keys of an issuer are not used", { issuer, dropped: keys.dropped });
      if (keys.size === 0) throw new Error("no key of the set can be used");
      this.#keys = keys;
      this.#loadedAt = this.#now();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log("warn", "the keys of an issuer could not be had", { issuer, reason, kept: this.#keys?.size ?? 0 });
    }
  }
}
