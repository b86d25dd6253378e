/**
 * The PoolingKernel over libllama: one model, a context for vectors of sequences and, once it is wanted, one for
 * vectors of tokens (libllama fixes the pooling when a context is made).
 *
 * A call is cut into groups of whole sequences, between which nothing is kept: in one physical batch each token is
 * compared with all, those of other sequences too, and what that costs is lost. A model that sees whole sequences takes
 * a group in one physical batch. A causal one is fed a sequence longer than PIECE in pieces, because libllama keeps a
 * vocabulary's logits for each token of a physical batch; what the pieces give is put together here. Sequences share
 * the KV cells (unified): with cells of their own libllama would cut sequences of unequal length into several physical
 * batches and pool only the last piece.
 * Every call is judged in JavaScript before the native one, because GGML_ASSERT ends the process.
 * Called by the engine process alone.
 */
import { availableParallelism } from "node:os";
import koffi from "koffi";
import type { PoolingType } from "#core/pool.ts";
import { modelFacts, type PoolingFacts } from "#engine/gguf/facts.ts";
import { readGgufHeader } from "#engine/gguf/header.ts";
import { KernelError } from "#engine/kernel.ts";
import { checkSequences, type PoolingKernel, type PoolingLimits, type PoolingOutput } from "#engine/pooling/kernel.ts";
import { BatchBuffers } from "./batch-buffers.ts";
import { MAX_SEQUENCES } from "./kernel.ts";
import type { Pointer } from "./library.ts";
import { type DeviceOptions, type OpenModel, openModel } from "./model.ts";
import { probeVocabulary } from "./probe.ts";
import type { AttachedThreads } from "./threadpool.ts";

export interface NativePoolingOptions extends DeviceOptions {
  readonly modelPath: string;
  readonly type: PoolingType;
  /** Tokens of the longest sequence; no more than the model was trained for. */
  readonly contextPerSlot: number;
  /** 1…256. */
  readonly maxSequences: number;
  /** Tokens of a call; at least contextPerSlot. */
  readonly maxBatchTokens: number;
  /** 0 = as many as the processor runs at once. */
  readonly threads: number;
}

/** Tokens of a causal model's physical batch. */
const PIECE = 512;
/** Tokens of a group on a CPU, unless one sequence is longer: the quickest of 64 … 2048 with a MiniLM. */
const GROUP = 256;
/** llama_pooling_type of llama.h. */
const TYPES: Readonly<Record<PoolingType, number>> = { none: 0, mean: 1, cls: 2, last: 3, rank: 4 };
const FLASH_ATTENTION_AUTO = -1;

/** @param onVocabulary it was tried and held @throws GgufError | PlatformError | Error with a message for people */
export function openNativePoolingKernel(options: NativePoolingOptions, onVocabulary?: () => void): PoolingKernel {
  const header = readGgufHeader(options.modelPath);
  const facts = modelFacts(header);
  judge(options, facts.pooling, facts.trainedContext);
  const model = openModel({ ...options, path: options.modelPath, vocabularyOnly: false });
  try {
    probeVocabulary(model);
    onVocabulary?.();
    return new NativePoolingKernel(model, options, facts.pooling.causal);
  } catch (error) {
    model.close();
    throw error;
  }
}

/** @throws Error: libllama would read a head that is not there, or positions that the model has no place for */
function judge(options: NativePoolingOptions, pooling: PoolingFacts, trainedContext: number): void {
  const { type, contextPerSlot, maxSequences, maxBatchTokens } = options;
  if (type === "rank" && pooling.classes === 0) throw new Error("this model has no classifier head");
  if (contextPerSlot < 1 || contextPerSlot > trainedContext)
    throw new Error(`sequences of ${contextPerSlot} tokens; the model was trained for ${trainedContext}`);
  if (maxBatchTokens < contextPerSlot) throw new Error("a batch holds less than a sequence");
  if (maxSequences < 1 || maxSequences > MAX_SEQUENCES) throw new Error(`${maxSequences} sequences in a batch`);
}

class NativePoolingKernel implements PoolingKernel {
  readonly limits: PoolingLimits;
  private readonly model: OpenModel;
  /** Tokens that can be looked at together: of a group, or of the longest sequence. */
  private readonly cells: number;
  private readonly options: NativePoolingOptions;
  /** Tokens of a physical batch. */
  private readonly physical: number;
  /** Tokens of a group. */
  private readonly group: number;
  private readonly buffers: BatchBuffers;
  private readonly contexts = new Map<PoolingOutput, Pointer>();
  private readonly threads: AttachedThreads[] = [];
  private open = true;

  constructor(model: OpenModel, options: NativePoolingOptions, causal: boolean) {
    const { library, handle, vocabulary } = model;
    const { type, contextPerSlot, maxBatchTokens } = options;
    this.model = model;
    this.options = options;
    this.group = model.onCpu ? Math.min(GROUP, maxBatchTokens) : maxBatchTokens;
    this.cells = Math.max(contextPerSlot, this.group);
    this.physical = causal ? Math.min(PIECE, this.cells) : this.cells;
    const classes = library.classes(handle);
    this.limits = {
      vocabularySize: library.vocabularySize(vocabulary),
      contextPerSlot: Math.min(contextPerSlot, library.trainedContext(handle)),
      // llama.cpp reserves an output for each sequence and asserts that a batch holds them.
      maxSequences: Math.min(options.maxSequences, this.physical),
      maxBatchTokens,
      type,
      width: type === "rank" ? classes : library.embeddingSize(handle),
      labels: labelsOf(model, classes),
    };
    this.buffers = new BatchBuffers(this.physical);
    try {
      const output = type === "none" ? "tokens" : "sequence";
      this.context(output);
      // An architecture that cannot be pooled shows it now and not at somebody's request.
      this.pool([Int32Array.of(0)], output);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  pool(sequences: readonly Int32Array[], output: PoolingOutput): readonly Float32Array[] {
    if (!this.open) throw new KernelError("failed", "the kernel is closed");
    checkSequences(sequences, output, this.limits);
    const context = this.context(output);
    const gathered = new Gathered(sequences, output === "tokens" ? "none" : this.limits.type, this.limits.width);
    for (const group of groupsOf(sequences, Math.min(this.group, this.cells))) {
      try {
        for (const piece of piecesOf(group, this.physical)) {
          this.decode(context, sequences, piece);
          this.collect(context, piece, gathered);
        }
      } finally {
        const memory = this.model.library.memory(context);
        if (memory !== null) this.model.library.clearMemory(memory, false);
      }
    }
    return gathered.results;
  }

  private decode(context: Pointer, sequences: readonly Int32Array[], piece: readonly Span[]): void {
    const { buffers } = this;
    buffers.clear();
    for (const { sequence, from, count } of piece) {
      const tokens = sequences[sequence] as Int32Array;
      for (let at = from; at < from + count; at++) buffers.add(tokens[at] as number, at, sequence, true);
    }
    const code = this.model.library.decode(context, buffers.struct());
    if (code !== 0) throw new KernelError("failed", `llama_decode failed (${code})`);
  }

  private collect(context: Pointer, piece: readonly Span[], gathered: Gathered): void {
    const { library } = this.model;
    const { width } = this.limits;
    if (gathered.type === "none") {
      const tokens = piece.reduce((sum, { count }) => sum + count, 0);
      const rows = view(library.embeddings(context), tokens * width);
      let at = 0;
      for (const span of piece) {
        gathered.tokens(span, rows.subarray(at * width, (at + span.count) * width));
        at += span.count;
      }
    } else for (const span of piece) gathered.pooled(span, view(library.pooled(context, span.sequence), width));
  }

  private context(output: PoolingOutput): Pointer {
    const made = this.contexts.get(output) ?? this.createContext(output === "tokens" ? "none" : this.limits.type);
    this.contexts.set(output, made);
    return made;
  }

  private createContext(type: PoolingType): Pointer {
    const { library, handle } = this.model;
    const threads = this.options.threads > 0 ? this.options.threads : availableParallelism();
    const context = library.createContext(handle, {
      ...library.contextDefaults(),
      n_ctx: this.cells,
      n_batch: this.physical,
      n_ubatch: this.physical,
      n_seq_max: this.limits.maxSequences,
      n_threads: threads,
      n_threads_batch: threads,
      flash_attn_type: FLASH_ATTENTION_AUTO,
      pooling_type: TYPES[type],
      embeddings: true,
      kv_unified: true,
    });
    if (context === null)
      throw new KernelError("failed", "no memory to pool in: lower --max-num-batched-tokens or --max-model-len");
    this.threads.push(library.attachThreads(context, threads));
    return context;
  }

  close(): void {
    if (!this.open) return;
    this.free();
    this.model.close();
  }

  private free(): void {
    this.open = false;
    for (const context of this.contexts.values()) this.model.library.freeContext(context);
    for (const threads of this.threads) threads.release();
    this.contexts.clear();
    this.buffers.free();
  }
}

function labelsOf({ library, handle }: OpenModel, classes: number): string[] {
  const labels = Array.from({ length: classes }, (_, index) => library.classLabel(handle, index));
  return labels.filter((label) => label !== null);
}

/** The native rows; they are only valid until the next call, so whoever keeps them copies. */
function view(pointer: Pointer | null, count: number): Float32Array {
  if (pointer === null) throw new KernelError("failed", "libllama gave no numbers");
  return new Float32Array(koffi.view(pointer, count * Float32Array.BYTES_PER_ELEMENT));
}

/** Consecutive tokens of one sequence in one physical batch. */
interface Span {
  readonly sequence: number;
  readonly from: number;
  readonly count: number;
}

/** Whole sequences, as many as fit; a longer one is a group by itself. */
function groupsOf(sequences: readonly Int32Array[], most: number): Span[][] {
  const groups: Span[][] = [];
  let room = 0;
  sequences.forEach(({ length: count }, sequence) => {
    const span = { sequence, from: 0, count };
    if (count > room) {
      groups.push([]);
      room = Math.max(most, count);
    }
    groups[groups.length - 1]?.push(span);
    room -= count;
  });
  return groups;
}

/** Cuts a group into physical batches. */
function piecesOf(group: readonly Span[], physical: number): Span[][] {
  const pieces: Span[][] = [[]];
  let room = physical;
  for (const { sequence, count: length } of group) {
    for (let from = 0; from < length; ) {
      if (room === 0) {
        pieces.push([]);
        room = physical;
      }
      const count = Math.min(room, length - from);
      pieces[pieces.length - 1]?.push({ sequence, from, count });
      from += count;
      room -= count;
    }
  }
  return pieces;
}

/** Puts together what the pieces of each sequence gave. Only causal models have more than one. */
class Gathered {
  readonly type: PoolingType;
  readonly results: Float32Array[];
  readonly #sequences: readonly Int32Array[];
  readonly #width: number;

  constructor(sequences: readonly Int32Array[], type: PoolingType, width: number) {
    this.type = type;
    this.#sequences = sequences;
    this.#width = width;
    this.results = sequences.map((tokens) => new Float32Array((type === "none" ? tokens.length : 1) * width));
  }

  tokens({ sequence, from }: Span, rows: Float32Array): void {
    this.results[sequence]?.set(rows, from * this.#width);
  }

  pooled({ sequence, from, count }: Span, row: Float32Array): void {
    const result = this.results[sequence] as Float32Array;
    const length = (this.#sequences[sequence] as Int32Array).length;
    if (count === length) result.set(row);
    else if (this.type === "mean") {
      const share = count / length;
      for (let i = 0; i < row.length; i++) result[i] = (result[i] as number) + (row[i] as number) * share;
    } else if (this.type === "cls" ? from === 0 : from + count === length) result.set(row);
  }
}
