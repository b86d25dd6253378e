/**
 * A pooling kernel without a model, for tests: each number is a hash of exactly the tokens it stands for, so that
 * batching can be tested to the bit. It keeps every rule of the native kernel and can fail on command.
 *
 * Called by process.ts (init message `kernel: "fake-pooling"`) and by tests.
 */
import type { FakeFault } from "#engine/fake.ts";
import { KernelError } from "#engine/kernel.ts";
import { checkSequences, type PoolingKernel, type PoolingLimits, type PoolingOutput } from "./kernel.ts";

/** Plain data, so that it can cross the process border. */
export interface FakePoolingScript extends Partial<PoolingLimits> {
  /** Any call whose sequences hold this token does the fault. */
  readonly poison?: { readonly token: number; readonly fault: FakeFault };
  /** Do not open at all, with this message. */
  readonly refuse?: string;
}

const LIMITS: PoolingLimits = {
  vocabularySize: 64,
  contextPerSlot: 64,
  maxSequences: 8,
  maxBatchTokens: 64,
  type: "mean",
  width: 8,
  labels: [],
};

export class FakePoolingKernel implements PoolingKernel {
  readonly limits: PoolingLimits;
  /** Sequences of each call so far. */
  readonly calls: number[] = [];
  readonly #poison: FakePoolingScript["poison"];
  #closed = false;

  constructor({ poison, refuse: _, ...limits }: FakePoolingScript = {}) {
    this.limits = { ...LIMITS, ...limits };
    this.#poison = poison;
  }

  pool(sequences: readonly Int32Array[], output: PoolingOutput): readonly Float32Array[] {
    if (this.#closed) throw new KernelError("failed", "the kernel is closed");
    checkSequences(sequences, output, this.limits);
    this.calls.push(sequences.length);
    return sequences.map((tokens) => {
      const poisoned = this.#poison !== undefined && tokens.includes(this.#poison.token);
      if (poisoned && this.#poison?.fault !== "nan") misbehave(this.#poison?.fault);
      const rows = output === "sequence" ? [tokens] : [...tokens].map((_, at) => tokens.subarray(0, at + 1));
      const values = rows.flatMap((row) => hashed(row, this.limits.width));
      return Float32Array.from(values, (value) => (poisoned ? Number.NaN : value));
    });
  }

  close(): void {
    this.#closed = true;
  }
}

/** What process.ts opens. @throws KernelError when scripted to refuse */
export function openFakePoolingKernel(script: FakePoolingScript): PoolingKernel {
  if (script.refuse !== undefined) throw new KernelError("failed", script.refuse);
  return new FakePoolingKernel(script);
}

function misbehave(fault: FakeFault | undefined): never {
  if (fault === "crash") process.abort();
  if (fault === "hang") for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
  if (fault === "full" || fault === "invalid" || fault === "failed") throw new KernelError(fault, `scripted: ${fault}`);
  throw new Error("the fake kernel threw what no kernel should");
}

/** Numbers in [-1, 1) that depend on the tokens alone. */
function hashed(tokens: Int32Array, width: number): number[] {
  let state = 1;
  for (const token of tokens) state = mix(state, token + 1);
  return Array.from({ length: width }, (_, at) => mix(state, at) / 2 ** 31 - 1);
}

function mix(hash: number, value: number): number {
  let mixed = Math.imul(hash ^ value, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca77);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}
