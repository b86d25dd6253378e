/**
 * Which adapters are loaded, and by how many open sequences each is used: one that is told to go does so with the last
 * of them, so that no answer changes its model half-way.
 *
 * Called by engine.ts only.
 */
import { NO_ADAPTER } from "./kernel.ts";

export class AdapterUse {
  readonly #users = new Map<number, number>();
  readonly #leaving = new Set<number>();

  add(adapter: number): void {
    this.#users.set(adapter, 0);
  }

  /** Whether new sequences may use it. */
  takes(adapter: number): boolean {
    return adapter === NO_ADAPTER || (this.#users.has(adapter) && !this.#leaving.has(adapter));
  }

  enter(adapter: number, sequences: number): void {
    if (adapter !== NO_ADAPTER) this.#users.set(adapter, (this.#users.get(adapter) ?? 0) + sequences);
  }

  /** A sequence ended. @returns whether the adapter is to be unloaded now */
  leave(adapter: number): boolean {
    const users = this.#users.get(adapter);
    if (users === undefined) return false;
    this.#users.set(adapter, users - 1);
    return users === 1 && this.#gone(adapter);
  }

  /** Nobody new from now on. @returns whether the adapter is to be unloaded now */
  dismiss(adapter: number): boolean {
    const users = this.#users.get(adapter);
    if (users === undefined) return false;
    this.#leaving.add(adapter);
    return users === 0 && this.#gone(adapter);
  }

  /** Adapters that the kernel holds. */
  get count(): number {
    return this.#users.size;
  }

  #gone(adapter: number): boolean {
    if (!this.#leaving.delete(adapter)) return false;
    return this.#users.delete(adapter);
  }
}
