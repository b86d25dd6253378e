/**
 * The Kernel over libllama: one model, one context, one batch in C memory seen as typed arrays.
 *
 * Split KV (each slot has cells of its own) with flash attention off: measured to give the same logits bit for bit
 * alone and in a full batch, which is what makes a seed mean something. Every batch is judged in JavaScript before the
 * native call, because GGML_ASSERT ends the process; slot lengths are kept here in step with the native cache.
 * Called by the engine process alone.
 */
import { availableParallelism } from "node:os";
import koffi from "koffi";
import { checkBatch, checkPrefix } from "#engine/batch-check.ts";
import { type Batch, type Kernel, KernelError, type KernelLimits } from "#engine/kernel.ts";
import type { Pointer } from "./library.ts";
import { type OpenModel, openModel } from "./model.ts";

export interface NativeKernelOptions {
  readonly modelPath: string;
  /** Tokens a slot may hold. */
  readonly contextPerSlot: number;
  /** 1…256 (LLAMA_MAX_SEQ). */
  readonly maxSequences: number;
  /** Tokens a forward may take. */
  readonly maxBatchTokens: number;
  /** 0 = as many as the processor runs at once. */
  readonly threads: number;
  readonly gpuLayers: number;
}

export const MAX_SEQUENCES = 256;
const FLASH_ATTENTION_OFF = 0;
/** Tokens of one physical batch: the activations' memory grows with it, the speed does not beyond this. */
const PHYSICAL_BATCH = 512;

/** @throws GgufError | PlatformError | Error with a message for people */
export function openNativeKernel(options: NativeKernelOptions): Kernel {
  const model = openModel({ path: options.modelPath, vocabularyOnly: false, gpuLayers: options.gpuLayers });
  const context = createContext(model, options);
  if (context === null) {
    model.close();
    throw new Error(
      `no memory for ${options.maxSequences} sequences of ${options.contextPerSlot} tokens: lower --max-num-seqs or --max-model-len`,
    );
  }
  return new NativeKernel(model, context, options);
}

function createContext(model: OpenModel, options: NativeKernelOptions): Pointer | null {
  const threads = options.threads > 0 ? options.threads : availableParallelism();
  return model.library.createContext(model.handle, {
    ...model.library.contextDefaults(),
    n_ctx: options.contextPerSlot * options.maxSequences,
    n_batch: options.maxBatchTokens,
    n_ubatch: Math.min(PHYSICAL_BATCH, options.maxBatchTokens),
    n_seq_max: options.maxSequences,
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: FLASH_ATTENTION_OFF,
    kv_unified: false,
  });
}

class NativeKernel implements Kernel {
  readonly limits: KernelLimits;
  private readonly model: OpenModel;
  private readonly context: Pointer;
  private readonly memory: Pointer;
  private readonly lengths: Int32Array;
  private readonly buffers: BatchBuffers;
  private views: { address: bigint; rows: Float32Array[] } = { address: 0n, rows: [] };
  private open = true;

  constructor(model: OpenModel, context: Pointer, options: NativeKernelOptions) {
    const { library, vocabulary } = model;
    this.model = model;
    this.context = context;
    this.memory = library.memory(context);
    const vocabularySize = library.vocabularySize(vocabulary);
    const endOfTurn: number[] = [];
    for (let token = 0; token < vocabularySize; token++)
      if (library.endsGeneration(vocabulary, token)) endOfTurn.push(token);
    this.limits = {
      vocabularySize,
      // llama.cpp rounds the cells of a slot up; more than was asked for is not promised.
      contextPerSlot: Math.min(options.contextPerSlot, library.contextPerSequence(context)),
      maxSequences: Math.min(options.maxSequences, library.maxSequences(context)),
      // n_batch is clamped silently to n_ctx.
      maxBatchTokens: Math.min(options.maxBatchTokens, library.batchSize(context)),
      endOfTurn,
    };
    this.lengths = new Int32Array(this.limits.maxSequences);
    this.buffers = new BatchBuffers(this.limits.maxBatchTokens);
  }

  forward(batch: Batch): readonly Float32Array[] {
    const outputs = checkBatch(batch, this.limits, this.lengths);
    const code = this.model.library.decode(this.context, this.buffers.fill(batch));
    if (code !== 0) {
      this.undo(batch);
      throw new KernelError(
        code === 1 ? "full" : "failed",
        code === 1 ? "no cells are left" : `llama_decode failed (${code})`,
      );
    }
    for (let i = 0; i < batch.count; i++) {
      const slot = batch.slots[i] as number;
      this.lengths[slot] = (this.lengths[slot] as number) + 1;
    }
    return this.rows(outputs);
  }

  /** Removes what a failed decode may have left, so that cache and lengths agree again. */
  private undo(batch: Batch): void {
    let last = -1;
    for (let i = 0; i < batch.count; i++) {
      const slot = batch.slots[i] as number;
      if (slot !== last) this.model.library.removeTokens(this.memory, slot, this.length(slot), -1);
      last = slot;
    }
  }

  /** One view over all rows, made again only when llama.cpp moved its buffer or the batch has more rows than ever. */
  private rows(count: number): Float32Array[] {
    if (count === 0) return [];
    const pointer = this.model.library.logits(this.context);
    const address = koffi.address(pointer);
    const size = this.limits.vocabularySize;
    if (this.views.address !== address || this.views.rows.length < count) {
      const all = new Float32Array(koffi.view(pointer, count * size * Float32Array.BYTES_PER_ELEMENT));
      const rows = Array.from({ length: count }, (_, i) => all.subarray(i * size, (i + 1) * size));
      this.views = { address, rows };
    }
    return this.views.rows.length === count ? this.views.rows : this.views.rows.slice(0, count);
  }

  truncate(slot: number, length: number): void {
    const held = this.heldBy(slot);
    checkPrefix(slot, length, held);
    if (length === held) return;
    if (!this.model.library.removeTokens(this.memory, slot, length, -1))
      throw new KernelError("failed", "this model's state cannot be cut");
    this.lengths[slot] = length;
  }

  copy(from: number, to: number, length: number): void {
    const held = this.heldBy(from);
    this.heldBy(to);
    if (from === to) throw new KernelError("invalid", `slot ${from} is copied onto itself`);
    checkPrefix(from, length, held);
    // Between slots with cells of their own only whole slots are copied (llama_kv_cache::seq_cp asserts it); the
    // bytes move at the next decode, in the order of the calls.
    this.model.library.copySequence(this.memory, from, to, -1, -1);
    this.lengths[to] = held;
    this.truncate(to, length);
  }

  private heldBy(slot: number): number {
    const held = slot >= 0 ? this.lengths[slot] : undefined;
    if (held === undefined) throw new KernelError("invalid", `slot ${slot} does not exist`);
    return held;
  }

  length(slot: number): number {
    return this.lengths[slot] ?? 0;
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.model.library.freeContext(this.context);
    this.model.close();
    this.buffers.free();
  }
}

/** llama_batch in C memory: each token has one sequence id, so `seq_id[i]` points into one array. */
class BatchBuffers {
  private readonly blocks: Pointer[] = [];
  private readonly tokens: Int32Array;
  private readonly positions: Int32Array;
  private readonly slots: Int32Array;
  private readonly outputs: Int8Array;
  private readonly struct: Record<string, unknown>;

  constructor(capacity: number) {
    const token = this.allocate("int32_t", capacity);
    const pos = this.allocate("int32_t", capacity);
    const slot = this.allocate("int32_t", capacity);
    const logits = this.allocate("int8_t", capacity);
    const counts = this.allocate("int32_t", capacity);
    const pointers = this.allocate("uint64_t", capacity);
    this.tokens = new Int32Array(koffi.view(token, capacity * 4));
    this.positions = new Int32Array(koffi.view(pos, capacity * 4));
    this.slots = new Int32Array(koffi.view(slot, capacity * 4));
    this.outputs = new Int8Array(koffi.view(logits, capacity));
    new Int32Array(koffi.view(counts, capacity * 4)).fill(1);
    const base = koffi.address(slot);
    const addresses = new BigUint64Array(koffi.view(pointers, capacity * 8));
    for (let i = 0; i < capacity; i++) addresses[i] = base + BigInt(i * 4);
    this.struct = { n_tokens: 0, token, embd: null, pos, n_seq_id: counts, seq_id: pointers, logits };
  }

  private allocate(type: string, count: number): Pointer {
    const block = koffi.alloc(type, count);
    this.blocks.push(block);
    return block;
  }

  fill(batch: Batch): Record<string, unknown> {
    const n = batch.count;
    this.tokens.set(batch.tokens.subarray(0, n));
    this.positions.set(batch.positions.subarray(0, n));
    this.slots.set(batch.slots.subarray(0, n));
    this.outputs.set(batch.outputs.subarray(0, n));
    this.struct["n_tokens"] = n;
    return this.struct;
  }

  free(): void {
    for (const block of this.blocks.splice(0)) koffi.free(block);
  }
}
