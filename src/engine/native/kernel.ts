/**
 * The Kernel over libllama: one model, one context, one batch in C memory seen as typed arrays.
 *
 * Split KV (each slot has cells of its own), and calls cut so that a row is the same bit for bit alone and in a full
 * batch (groups.ts), which is what makes a seed mean something. Every batch is judged in JavaScript before the native
 * call, because GGML_ASSERT ends the process; slot lengths are kept here in step with the native cache.
 * Called by the engine process alone.
 */
import { availableParallelism } from "node:os";
import koffi from "koffi";
import { checkBatch, checkPrefix } from "#engine/batch-check.ts";
import { modelFacts } from "#engine/gguf/facts.ts";
import { type Batch, type Kernel, KernelError, type KernelLimits } from "#engine/kernel.ts";
import { Adapters } from "./adapters.ts";
import { BatchBuffers } from "./batch-buffers.ts";
import { BLOCK, groupForward, type Piece, type Span, segmentsOf, spansOf } from "./groups.ts";
import type { Pointer } from "./library.ts";
import { type DeviceOptions, type OpenModel, openModel } from "./model.ts";
import { probeForward, probeVocabulary } from "./probe.ts";
import type { AttachedThreads } from "./threadpool.ts";
import { readVocabulary } from "./vocabulary.ts";

export interface NativeKernelOptions extends DeviceOptions {
  readonly modelPath: string;
  /** Tokens a slot may hold. */
  readonly contextPerSlot: number;
  /** 1…256 (LLAMA_MAX_SEQ). */
  readonly maxSequences: number;
  /** Tokens a forward may take. */
  readonly maxBatchTokens: number;
  /** Rows that a forward may give. Absent: as many as tokens. */
  readonly maxRows?: number;
  /** 0 = as many as the processor runs at once. */
  readonly threads: number;
  /** Compute a batch as it comes: quicker, and a row then depends on who else is in it. Absent: no. */
  readonly inCompany?: boolean;
  /** Highest rank of a LoRA adapter; absent: none are taken. */
  readonly maxLoraRank?: number;
}

export const MAX_SEQUENCES = 256;
/** Where the model's shape allows it: prefill is about a fifth quicker, and the values need no transposed copy. */
const FLASH_ATTENTION_AUTO = -1;
/** Tokens of one physical batch: the activations' memory grows with it, the speed does not beyond this. */
const PHYSICAL_BATCH = 512;
/** Up to so many tokens of context one token alone is computed as it is in company (n_kv is padded to this). */
const COMPANY_FROM = 256;

/**
 * The vocabulary is tried while the context is made.
 * @param onVocabulary it held @throws GgufError | PlatformError | Error with a message for people
 */
export async function openNativeKernel(options: NativeKernelOptions, onVocabulary?: () => void): Promise<Kernel> {
  const model = openModel({ ...options, path: options.modelPath, vocabularyOnly: false });
  const making = createContext(model, options);
  let endOfTurn: ReadonlySet<number>;
  try {
    ({ endOfTurn } = probeVocabulary(model));
    onVocabulary?.();
  } catch (error) {
    const context = await making;
    if (context !== null) model.library.freeContext(context);
    model.close();
    throw error;
  }
  const context = await making;
  if (context === null) {
    model.close();
    throw new Error(
      `no memory for ${options.maxSequences} sequences of ${options.contextPerSlot} tokens: lower --max-num-seqs or --max-model-len`,
    );
  }
  const kernel = new NativeKernel(model, context, options, [...endOfTurn]);
  probeForward(kernel);
  return kernel;
}

function createContext(model: OpenModel, options: NativeKernelOptions): Promise<Pointer | null> {
  const threads = threadsOf(options);
  return model.library.createContextBeside(model.handle, {
    ...model.library.contextDefaults(),
    n_ctx: options.contextPerSlot * options.maxSequences,
    n_batch: options.maxBatchTokens,
    n_ubatch: physicalBatch(options),
    n_seq_max: options.maxSequences,
    // More of them in a call would end the process (output_reserve asserts it); checkBatch refuses them.
    n_outputs_max: rowsOf(options),
    n_threads: threads,
    n_threads_batch: threads,
    flash_attn_type: FLASH_ATTENTION_AUTO,
    kv_unified: false,
  });
}

function rowsOf({ maxRows, maxBatchTokens, maxSequences }: NativeKernelOptions): number {
  return Math.max(maxSequences, Math.min(maxRows ?? maxBatchTokens, maxBatchTokens));
}

function threadsOf({ threads }: NativeKernelOptions): number {
  return threads > 0 ? threads : availableParallelism();
}

/** Whether a block always finds room beside a token of every other sequence; without that there are no blocks. */
function hasBlocks({ maxBatchTokens, maxSequences }: NativeKernelOptions): boolean {
  return maxBatchTokens >= maxSequences + BLOCK;
}

function physicalBatch({ maxBatchTokens }: NativeKernelOptions): number {
  return Math.min(PHYSICAL_BATCH, maxBatchTokens);
}

class NativeKernel implements Kernel {
  readonly limits: KernelLimits;
  private readonly model: OpenModel;
  private readonly context: Pointer;
  private readonly memory: Pointer;
  private readonly pool: AttachedThreads;
  /** Calls are cut so that a row never depends on others. */
  private readonly exact: boolean;
  private readonly lengths: Int32Array;
  private readonly buffers: BatchBuffers;
  private readonly physical: number;
  /** Tokens that a slot could hold; llama.cpp rounds up. */
  private readonly cells: number;
  private readonly adapters: Adapters;
  /** Slots that were copied from or to since the last call: their bytes have not moved yet. */
  private readonly copied = new Set<number>();
  /** Rows of all but the last call of a forward. */
  private readonly kept: Float32Array[] = [];
  private views: { address: bigint; rows: Float32Array[] } = { address: 0n, rows: [] };
  private open = true;

  constructor(model: OpenModel, context: Pointer, options: NativeKernelOptions, endOfTurn: readonly number[]) {
    const { library, vocabulary } = model;
    this.model = model;
    this.context = context;
    this.memory = library.memory(context);
    this.exact = model.onCpu && options.inCompany !== true;
    this.pool = library.attachThreads(context, threadsOf(options));
    this.limits = {
      vocabularySize: library.vocabularySize(vocabulary),
      // llama.cpp rounds the cells of a slot up; more than was asked for is not promised.
      contextPerSlot: Math.min(options.contextPerSlot, library.contextPerSequence(context)),
      maxSequences: Math.min(options.maxSequences, library.maxSequences(context)),
      // n_batch is clamped silently to n_ctx.
      maxBatchTokens: Math.min(options.maxBatchTokens, library.batchSize(context)),
      maxRows: rowsOf(options),
      endOfTurn,
      // A graphics processor computes in ways of its own, which cutting does not make alike: there it would only cost.
      prefillBlock: this.exact && hasBlocks(options) ? BLOCK : 1,
      ...(this.exact && options.maxSequences > 1 ? { loneFrom: COMPANY_FROM } : {}),
    };
    this.physical = physicalBatch(options);
    this.cells = library.contextPerSequence(context);
    this.adapters = new Adapters(model, context, options.maxLoraRank ?? 0);
    this.lengths = new Int32Array(this.limits.maxSequences);
    this.buffers = new BatchBuffers(this.limits.maxBatchTokens);
  }

  forward(batch: Batch): readonly Float32Array[] {
    checkBatch(batch, this.limits, this.lengths, this.adapters);
    const before = this.lengths.slice();
    const found = new Map<number, Float32Array>();
    try {
      const groups = [...spansOf(batch, this.adapters.current)];
      groups.forEach(([adapter, spans], at) => {
        this.adapters.use(adapter);
        this.forwardSpans(batch, spans, found, at === groups.length - 1);
      });
    } catch (error) {
      this.undo(before);
      throw error;
    }
    return [...found].sort(([a], [b]) => a - b).map(([, row]) => row);
  }

  /** @param last nothing follows in this forward */
  private forwardSpans(batch: Batch, spans: readonly Span[], found: Map<number, Float32Array>, last: boolean): void {
    const whole = { calls: [spans], singles: [] };
    const { calls, singles } = this.exact ? groupForward(spans, this.physical) : whole;
    for (const call of calls) this.call(batch, call, found, last && singles.length === 0 && call === calls.at(-1));
    if (singles.length > 0) this.callSingles(batch, singles, found, last);
  }

  /** Computes spans of the batch in one call. @param found rows by index in the batch @param last nothing follows */
  private call(batch: Batch, spans: readonly Piece[], found: Map<number, Float32Array>, last: boolean): void {
    const { buffers } = this;
    buffers.clear();
    const wanted: number[] = [];
    for (const { slot, from, count } of spans) {
      for (let i = from; i < from + count; i++) {
        const output = batch.outputs[i] !== 0;
        if (output) wanted.push(i);
        buffers.add(batch.tokens[i] as number, batch.positions[i] as number, slot, output);
      }
    }
    this.decode();
    for (const { slot, count } of spans) this.lengths[slot] = (this.lengths[slot] as number) + count;
    this.collect(wanted, found, last);
  }

  private callSingles(batch: Batch, singles: readonly Piece[], found: Map<number, Float32Array>, last: boolean): void {
    const { buffers } = this;
    const companions = this.companionsOf(singles.map(({ slot }) => slot));
    const entries = [...singles, ...companions.map((slot) => ({ slot, from: -1, count: 1 }))];
    if (companions.length > 0) entries.sort((a, b) => a.slot - b.slot);
    buffers.clear();
    const wanted: number[] = [];
    for (const { slot, from } of entries) {
      const output = from >= 0 && batch.outputs[from] !== 0;
      if (output) wanted.push(from);
      buffers.add(from < 0 ? 0 : (batch.tokens[from] as number), this.lengths[slot] as number, slot, output);
    }
    this.decode();
    for (const { slot } of singles) this.lengths[slot] = (this.lengths[slot] as number) + 1;
    for (const slot of companions) this.model.library.removeTokens(this.memory, slot, this.lengths[slot] as number, -1);
    this.collect(wanted, found, last);
  }

  /**
   * Slots that keep lone long ones company: beside them, not in the call, the shorter the better.
   * @throws KernelError full: what the slots beside it keep has to go first
   */
  private companionsOf(slots: readonly number[]): number[] {
    const companions: number[] = [];
    for (const segment of segmentsOf(slots)) {
      const slot = segment[0] as number;
      if (segment.length > 1 || (this.lengths[slot] as number) < COMPANY_FROM) continue;
      if (companions[companions.length - 1] === slot - 1) continue;
      const beside = [slot - 1, slot + 1].filter((other) => other >= 0 && other < this.limits.maxSequences);
      beside.sort((a, b) => (this.lengths[a] as number) - (this.lengths[b] as number));
      const [companion] = beside;
      if (companion === undefined) continue;
      // A slot is full only where a prompt as long as the window was all there was: its owner has nothing to add.
      if ((this.lengths[companion] as number) >= this.cells) throw new KernelError("full", "no cell for a companion");
      companions.push(companion);
    }
    return companions;
  }

  private decode(): void {
    const code = this.model.library.decode(this.context, this.buffers.struct());
    this.copied.clear();
    if (code === 1) throw new KernelError("full", "no cells are left");
    if (code !== 0) throw new KernelError("failed", `llama_decode failed (${code})`);
  }

  /** The next call overwrites llama.cpp's rows: all but the last one's are copied. */
  private collect(wanted: readonly number[], found: Map<number, Float32Array>, last: boolean): void {
    const rows = this.rows(wanted.length);
    wanted.forEach((index, at) => {
      const row = rows[at] as Float32Array;
      found.set(index, last ? row : this.keep(found.size, row));
    });
  }

  private keep(at: number, row: Float32Array): Float32Array {
    this.kept[at] ??= new Float32Array(row.length);
    const kept = this.kept[at];
    kept.set(row);
    return kept;
  }

  /** Removes what a failed forward may have left, so that cache and lengths agree again. */
  private undo(before: Int32Array): void {
    before.forEach((length, slot) => {
      this.model.library.removeTokens(this.memory, slot, length, -1);
      this.lengths[slot] = length;
    });
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
    this.copied.add(from).add(to);
    this.lengths[to] = held;
    this.truncate(to, length);
  }

  /** Without those that the padding of a page takes. */
  get stateBytesPerToken(): number {
    return modelFacts(this.model.header).kvBytesPerToken;
  }

  save(slot: number): Uint8Array {
    this.heldBy(slot);
    this.requireSettled(slot);
    const { library } = this.model;
    const size = Number(library.stateSize(this.context, slot));
    const data = new Uint8Array(size);
    if (Number(library.saveState(this.context, data, size, slot)) !== size)
      throw new KernelError("failed", "libllama cannot save this slot");
    return data;
  }

  restore(slot: number, data: Uint8Array, length: number): void {
    this.heldBy(slot);
    this.requireSettled(slot);
    this.truncate(slot, 0);
    if (Number(this.model.library.restoreState(this.context, data, data.length, slot)) === 0)
      throw new KernelError("failed", "libllama cannot restore this slot");
    this.lengths[slot] = length;
  }

  private requireSettled(slot: number): void {
    if (this.copied.has(slot)) throw new KernelError("failed", `a copy of slot ${slot} has not been carried out yet`);
  }

  private heldBy(slot: number): number {
    const held = slot >= 0 ? this.lengths[slot] : undefined;
    if (held === undefined) throw new KernelError("invalid", `slot ${slot} does not exist`);
    return held;
  }

  length(slot: number): number {
    return this.lengths[slot] ?? 0;
  }

  pieces(): readonly (Uint8Array | undefined)[] {
    const { piece, size } = readVocabulary(this.model);
    return Array.from({ length: size }, (_, token) => {
      const bytes = piece(token, false);
      return bytes.length === 0 ? undefined : bytes;
    });
  }

  loadAdapter(adapter: number, path: string): void {
    this.adapters.load(adapter, path);
  }

  unloadAdapter(adapter: number): void {
    this.adapters.unload(adapter);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.model.library.freeContext(this.context);
    this.pool.release();
    this.model.close();
    this.buffers.free();
  }
}
