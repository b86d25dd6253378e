/**
 * Which adapters are loaded, and by how many open sequences each is used: one that is told to go does so with the last
 * of them, so that no answer changes its model half-way. Where the kernel makes way for another one, that gets them too.
 *
 * Called by engine.ts only.
 */
import type { AdaptersInUse } from "#core/backend.ts";
import type { AdapterReference } from "#core/generate.ts";
import { type Kernel, KernelError, NO_ADAPTER } from "./kernel.ts";

export class AdapterUse {
  readonly #users = new Map<number, number>();
  readonly #leaving = new Set<number>();
  readonly #paths = new Map<number, string>();
  readonly #names = new Map<number, string>();
  /** Absent while the engine sleeps. */
  #kernel: Kernel | undefined;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** @throws KernelError invalid, with a reason for people */
  load(adapter: number, path: string): void {
    if (this.#kernel === undefined) throw new KernelError("invalid", "the engine is asleep: wake it first");
    this.#kernel.loadAdapter(adapter, path);
    this.#users.set(adapter, 0);
    this.#paths.set(adapter, path);
  }

  /** Whether new sequences may use it. */
  takes(adapter: number): boolean {
    return adapter === NO_ADAPTER || (this.#users.has(adapter) && !this.#leaving.has(adapter));
  }

  enter(adapter: AdapterReference | undefined, sequences: number): void {
    if (adapter === undefined) return;
    this.#users.set(adapter.number, (this.#users.get(adapter.number) ?? 0) + sequences);
    this.#names.set(adapter.number, adapter.name);
  }

  /** @param running the adapters of all running sequences */
  inUse(running: readonly number[]): AdaptersInUse | undefined {
    if (this.#users.size === 0) return undefined;
    const counts = new Map<number, number>();
    for (const adapter of running) counts.set(adapter, (counts.get(adapter) ?? 0) + 1);
    const named = (holds: (users: number, runs: number) => boolean): string[] =>
      [...this.#users]
        .filter(([adapter, users]) => holds(users, counts.get(adapter) ?? 0))
        .map(([adapter]) => this.#names.get(adapter) ?? String(adapter));
    return { running: named((_, runs) => runs > 0), waiting: named((users, runs) => users > runs) };
  }

  /** A sequence ended. */
  leave(adapter: number): void {
    const users = this.#users.get(adapter);
    if (users === undefined) return;
    this.#users.set(adapter, users - 1);
    if (users === 1 && this.#leaving.has(adapter)) this.#forget(adapter);
  }

  /** Nobody new from now on. Unknown ones are ignored. */
  dismiss(adapter: number): void {
    const users = this.#users.get(adapter);
    if (users === undefined) return;
    this.#leaving.add(adapter);
    if (users === 0) this.#forget(adapter);
  }

  /** The kernel is about to be closed. */
  detach(): void {
    this.#kernel = undefined;
  }

  /** Another kernel gets them all. @throws KernelError invalid: one of them is no adapter of this model */
  attach(kernel: Kernel): void {
    for (const [adapter, path] of this.#paths) kernel.loadAdapter(adapter, path);
    this.#kernel = kernel;
  }

  /** Adapters that the kernel holds. */
  get count(): number {
    return this.#users.size;
  }

  #forget(adapter: number): void {
    this.#leaving.delete(adapter);
    this.#users.delete(adapter);
    this.#paths.delete(adapter);
    this.#names.delete(adapter);
    this.#kernel?.unloadAdapter(adapter);
  }
}
