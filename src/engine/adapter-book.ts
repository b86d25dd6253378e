/**
 * The adapters of an engine as its supervisor knows them: asked for, loaded, and loaded again after a restart.
 *
 * Invariant: an adapter stands in the book from the moment the engine said that it has it until it is unloaded; a
 * question is answered exactly once, at the latest when the engine process ends. Used by supervisor.ts only.
 */
import { Fault } from "#core/fault.ts";
import type { Command } from "./messages.ts";

type Send = (command: Command) => void;

export class AdapterBook {
  readonly #paths = new Map<number, string>();
  readonly #asked = new Map<number, (error: string | undefined) => void>();
  #asks = 0;

  /** @throws Fault invalid_request: the engine refused the file | engine_failed: it ended */
  async load(adapter: number, path: string, send: Send): Promise<void> {
    const error = await this.#ask(adapter, path, send);
    if (error === GONE) throw new Fault("engine_failed", "the engine failed while it loaded the adapter");
    if (error !== undefined) throw new Fault("invalid_request", error, { param: "lora_path" });
    this.#paths.set(adapter, path);
  }

  unload(adapter: number, send: Send): void {
    if (this.#paths.delete(adapter)) send({ type: "unload-adapter", adapter });
  }

  /** A new engine process: it gets all of them again. Returns those that it refuses, which are then forgotten. */
  async restore(send: Send): Promise<readonly number[]> {
    const lost: number[] = [];
    const asked = [...this.#paths].map(async ([adapter, path]) => {
      if ((await this.#ask(adapter, path, send)) === undefined) return;
      this.#paths.delete(adapter);
      lost.push(adapter);
    });
    await Promise.all(asked);
    return lost;
  }

  answer(ask: number, error: string | undefined): void {
    this.#asked.get(ask)?.(error);
    this.#asked.delete(ask);
  }

  /** The engine process ended. */
  ended(): void {
    for (const ask of [...this.#asked.keys()]) this.answer(ask, GONE);
  }

  #ask(adapter: number, path: string, send: Send): Promise<string | undefined> {
    const ask = ++this.#asks;
    return new Promise((resolve) => {
      this.#asked.set(ask, resolve);
      send({ type: "load-adapter", ask, adapter, path });
    });
  }
}

const GONE = "the engine ended";
