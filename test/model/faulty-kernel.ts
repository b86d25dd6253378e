/**
 * A kernel around another one that fails on command, and that watches its caller: every batch is measured. Calls that
 * do something (forward, copy, truncate) count from 1. A fault leaves the kernel inside as it was, as Kernel promises.
 */
import assert from "node:assert/strict";
import { type Batch, type Kernel, KernelError, type KernelErrorCode, type KernelLimits } from "#engine/kernel.ts";

export type FaultyCall = "forward" | "copy" | "truncate" | "save" | "restore";

export class FaultyKernel implements Kernel {
  readonly limits: KernelLimits;
  readonly #inner: Kernel;
  readonly #judge: (call: FaultyCall, number: number) => KernelErrorCode | undefined;
  /** What was called, in order. */
  readonly calls: FaultyCall[] = [];
  /** Tokens of the last forward that was asked for. */
  batchTokens = 0;

  /** @param judge whether this call fails, and how */
  constructor(inner: Kernel, judge: (call: FaultyCall, number: number) => KernelErrorCode | undefined) {
    this.#inner = inner;
    this.limits = inner.limits;
    this.#judge = judge;
  }

  forward(batch: Batch): readonly Float32Array[] {
    this.batchTokens = batch.count;
    assert.ok(batch.count >= 1 && batch.count <= this.limits.maxBatchTokens, `${batch.count} tokens in a batch`);
    this.#call("forward");
    return this.#inner.forward(batch);
  }

  truncate(slot: number, length: number): void {
    this.#call("truncate");
    this.#inner.truncate(slot, length);
  }

  copy(from: number, to: number, length: number): void {
    this.#call("copy");
    this.#inner.copy(from, to, length);
  }

  get stateBytesPerToken(): number {
    return this.#inner.stateBytesPerToken;
  }

  save(slot: number): Uint8Array {
    this.#call("save");
    return this.#inner.save(slot);
  }

  /** A fault leaves the slot empty, as Kernel says. */
  restore(slot: number, data: Uint8Array, length: number): void {
    try {
      this.#call("restore");
    } catch (error) {
      this.#inner.truncate(slot, 0);
      throw error;
    }
    this.#inner.restore(slot, data, length);
  }

  length(slot: number): number {
    return this.#inner.length(slot);
  }

  pieces(): readonly (Uint8Array | undefined)[] {
    return this.#inner.pieces();
  }

  loadAdapter(adapter: number, path: string): void {
    this.#inner.loadAdapter(adapter, path);
  }

  unloadAdapter(adapter: number): void {
    this.#inner.unloadAdapter(adapter);
  }

  close(): void {
    this.#inner.close();
  }

  #call(call: FaultyCall): void {
    this.calls.push(call);
    const code = this.#judge(call, this.calls.length);
    if (code !== undefined) throw new KernelError(code, `${call}: scripted`);
  }
}
