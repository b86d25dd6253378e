/**
 * The LoRA adapters of one context: loaded by number, one at a time in use.
 *
 * Every file is judged before libllama reads it (gguf/adapter.ts). An adapter may be freed only while the context does
 * not use it. Used by kernel.ts only.
 */

import { readAdapter } from "#engine/gguf/adapter.ts";
import { GgufError } from "#engine/gguf/errors.ts";
import { KernelError, NO_ADAPTER } from "#engine/kernel.ts";
import type { Pointer } from "./library.ts";
import type { OpenModel } from "./model.ts";

const WHOLE = Float32Array.of(1);
const NONE = new Float32Array();

export class Adapters {
  private readonly model: OpenModel;
  private readonly context: Pointer;
  private readonly maxRank: number;
  private readonly loaded = new Map<number, Pointer>();
  /** The one that the context computes with. */
  current = NO_ADAPTER;

  constructor(model: OpenModel, context: Pointer, maxRank: number) {
    this.model = model;
    this.context = context;
    this.maxRank = maxRank;
  }

  has(adapter: number): boolean {
    return this.loaded.has(adapter);
  }

  /** @throws KernelError invalid */
  load(adapter: number, path: string): void {
    if (this.loaded.has(adapter)) throw new KernelError("invalid", `adapter ${adapter} is loaded already`);
    this.judge(path);
    const handle = this.model.library.loadAdapter(this.model.handle, path);
    if (handle === null) throw new KernelError("invalid", "libllama cannot load this adapter");
    this.loaded.set(adapter, handle);
  }

  /** Makes the context compute with it from the next call on. */
  use(adapter: number): void {
    if (adapter === this.current) return;
    const handle = this.loaded.get(adapter);
    const { library } = this.model;
    if (handle === undefined) library.setAdapters(this.context, [], 0, NONE);
    else library.setAdapters(this.context, [handle], 1, WHOLE);
    this.current = adapter;
  }

  unload(adapter: number): void {
    const handle = this.loaded.get(adapter);
    if (handle === undefined) return;
    if (this.current === adapter) this.use(NO_ADAPTER);
    this.loaded.delete(adapter);
    this.model.library.freeAdapter(handle);
  }

  private judge(path: string): void {
    try {
      readAdapter(path, this.model.header, this.maxRank);
    } catch (error) {
      if (error instanceof GgufError) throw new KernelError("invalid", error.message);
      const code = (error as NodeJS.ErrnoException).code;
      if (code === undefined) throw error;
      throw new KernelError("invalid", code === "ENOENT" ? "there is no such file" : `it cannot be read (${code})`);
    }
  }
}
