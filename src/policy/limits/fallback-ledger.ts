/**
 * Two ledgers: the shared one, and this server's own for when that cannot be asked (--limits-when-unavailable open).
 * Meanwhile every server holds the limits by itself, so that n of them let n times as much pass.
 */
import type { Entry, Ledger, Refused, Taken } from "./ledger.ts";

export class FallbackLedger implements Ledger {
  readonly #shared: Ledger;
  readonly #own: Ledger;
  readonly #onUnavailable: (error: unknown) => void;

  constructor(shared: Ledger, own: Ledger, onUnavailable: (error: unknown) => void) {
    this.#shared = shared;
    this.#own = own;
    this.#onUnavailable = onUnavailable;
  }

  async take(entries: readonly Entry[]): Promise<Taken | Refused> {
    try {
      return await this.#shared.take(entries);
    } catch (error) {
      this.#onUnavailable(error);
      return this.#own.take(entries);
    }
  }

  async close(): Promise<void> {
    await this.#shared.close();
    await this.#own.close();
  }
}
