/**
 * LoRA adapters over several engines: all have them, or none. Engines that start later, or again, get them too.
 *
 * Invariant: what stands here was taken by every engine that ran when it was loaded. Used by fleet.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { Replica } from "./fleet.ts";
import type { Supervisor } from "./supervisor.ts";

export class FleetAdapters {
  readonly #paths = new Map<number, string>();

  /** @throws Fault as EngineHandle.loadAdapter: then no engine has it */
  async load(replicas: readonly Replica[], adapter: number, path: string): Promise<void> {
    const results = await Promise.all(replicas.map(({ supervisor }) => attempt(supervisor, adapter, path)));
    const refusal = results.find((fault) => fault?.kind === "invalid_request");
    const taken = results.some((fault) => fault === undefined);
    const fault = refusal ?? (taken ? undefined : results[0]);
    if (fault !== undefined) {
      for (const { supervisor } of replicas) supervisor.unloadAdapter(adapter);
      throw fault;
    }
    this.#paths.set(adapter, path);
    // Those that were away at that moment find it in their book when they are back.
    for (const { supervisor } of replicas) supervisor.rememberAdapter(adapter, path);
  }

  unload(replicas: readonly Replica[], adapter: number): void {
    this.#paths.delete(adapter);
    for (const { supervisor } of replicas) supervisor.unloadAdapter(adapter);
  }

  /** An engine that is about to start. */
  giveTo(supervisor: Supervisor): void {
    for (const [adapter, path] of this.#paths) supervisor.rememberAdapter(adapter, path);
  }
}

async function attempt(supervisor: Supervisor, adapter: number, path: string): Promise<Fault | undefined> {
  try {
    await supervisor.loadAdapter(adapter, path);
    return undefined;
  } catch (error) {
    if (error instanceof Fault) return error;
    throw error;
  }
}
