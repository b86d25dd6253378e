/**
 * The kernel: the one narrow surface between scheduling and numbers. Implementations: native/ (libllama) and
 * fake.ts (tests); kernel.contract.ts runs over both.
 *
 * Words: a slot is the kernel's dense sequence id, 0 … maxSequences-1; a row is the logits of one output token.
 * One thread, one caller (the engine process's step loop); no call overlaps another.
 */

/** Facts and bounds, fixed once the kernel is open. Token counts in tokens. */
export interface KernelLimits {
  readonly vocabularySize: number;
  /** Tokens that one slot can hold. */
  readonly contextPerSlot: number;
  readonly maxSequences: number;
  /** Tokens that one forward can take. */
  readonly maxBatchTokens: number;
  /** Rows that one forward can give; as many as tokens if absent. Each takes memory for a whole vocabulary. */
  readonly maxRows?: number;
  readonly endOfTurn: readonly number[];
  /**
   * So many tokens of a slot or more can be computed together, in another order of additions than tokens by themselves
   * are, and sooner. The batch says which are (`blocks`). 1: there is one way of computing only.
   */
  readonly prefillBlock: number;
  /**
   * From so many tokens on, a token of the only sequence in a forward costs as much as two: so that it is computed as
   * in company, it gets a companion that is thrown away. Absent: never.
   */
  readonly loneFrom?: number;
}

/** The model itself, without any LoRA. */
export const NO_ADAPTER = 0;

/**
 * The arrays of one forward. Reused between steps: only the first `count` entries count.
 * Invariants: slots ascend; within a slot positions are consecutive and go on where the slot ends; every token
 * lies in [0, vocabularySize); a slot's block tokens come before its others, and are none or at least
 * KernelLimits.prefillBlock. The kernel checks them all before any native call (GGML_ASSERT kills the process).
 */
export interface Batch {
  count: number;
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly slots: Int32Array;
  /** The adapter that computes the token; NO_ADAPTER or a loaded one, the same for all of a slot's tokens. */
  readonly adapters: Int32Array;
  /** 1 where the token is computed as part of a prefill block. */
  readonly blocks: Uint8Array;
  /** 1 where logits are wanted. */
  readonly outputs: Uint8Array;
}

export function createBatch(capacity: number): Batch {
  return {
    count: 0,
    tokens: new Int32Array(capacity),
    positions: new Int32Array(capacity),
    slots: new Int32Array(capacity),
    adapters: new Int32Array(capacity),
    blocks: new Uint8Array(capacity),
    outputs: new Uint8Array(capacity),
  };
}

/** Why a forward did not happen. `full`: no cells left (evict and try again). `invalid`: the batch breaks an invariant. */
export type KernelErrorCode = "full" | "invalid" | "failed";

export class KernelError extends Error {
  readonly code: KernelErrorCode;
  constructor(code: KernelErrorCode, message: string) {
    super(message);
    this.name = "KernelError";
    this.code = code;
  }
}

export interface Kernel {
  readonly limits: KernelLimits;
  /**
   * Runs the batch and returns one row per output, in batch order. Shape of a row: [vocabularySize], raw logits.
   * The rows are views of kernel memory: writable scratch for the caller, valid until the next call.
   * @throws KernelError; then nothing has changed, whatever its code.
   */
  forward(batch: Batch): readonly Float32Array[];
  /** Forgets all but the first `length` tokens of a slot; it holds at least as many. Free where nothing changes. */
  truncate(slot: number, length: number): void;
  /**
   * Slot `to` holds the first `length` tokens of slot `from` (another one, with at least as many), and nothing else.
   * Costs a copy of a whole slot, however short the prefix is.
   */
  copy(from: number, to: number, length: number): void;
  /** Bytes a token takes in `save`, about. */
  readonly stateBytesPerToken: number;
  /** What the slot holds, for `restore` of a kernel opened alike. @throws KernelError failed: not possible now */
  save(slot: number): Uint8Array;
  /**
   * The slot holds what was saved, `length` tokens, and nothing else. The bytes have to be those that `save` gave: the
   * kernel cannot tell. @throws KernelError failed: the slot holds nothing then
   */
  restore(slot: number, data: Uint8Array, length: number): void;
  /** Bytes of the text that each token stands for; undefined where it stands for none. Shape: [vocabularySize]. */
  pieces(): readonly (Uint8Array | undefined)[];
  /**
   * Reads a LoRA adapter, known by `adapter` (≥ 1, not in use) from then on. Costs a forward of its own in each step
   * in which it is used. @throws KernelError invalid: the file is no adapter of this model, with a reason for people
   */
  loadAdapter(adapter: number, path: string): void;
  /** Forgets an adapter; unknown ones are ignored. What slots hold of it stays, and is of no use. */
  unloadAdapter(adapter: number): void;
  /** Tokens the slot holds. */
  length(slot: number): number;
  close(): void;
}
