/**
 * The C functions of libllama that the server uses, as typed TypeScript functions.
 *
 * Source of the declarations: llama.h and ggml-backend.h of llama.cpp v0.5.0. Pointers are koffi's untyped handles.
 * No function here takes a JavaScript callback: compute threads must never enter JavaScript.
 * Used by model.ts, kernel.ts, pooling-kernel.ts, vocabulary.ts; loaded once per process.
 */
import { promisify } from "node:util";
import koffi, { type LibraryHandle } from "koffi";
import { checkLayout, defineStructs } from "./layout.ts";
import { type Device, type KernelFiles, locateKernels, PlatformError } from "./locate.ts";
import { type AttachedThreads, Threadpools } from "./threadpool.ts";

/** A native address. */
export type Pointer = unknown;
export type Struct = Record<string, unknown>;

export interface Library {
  /** Graphics processors that compute; none with the CPU's kernels. */
  readonly gpus: number;
  /** Lets a context compute with threads that stay; release them once the context is free. */
  attachThreads(context: Pointer, threads: number): AttachedThreads;
  maxDevices(): number;
  version(): string;
  modelDefaults(): Struct;
  contextDefaults(): Struct;
  loadModel(path: string, params: Struct): Pointer | null;
  freeModel(model: Pointer): void;
  createContext(model: Pointer, params: Struct): Pointer | null;
  /** The same, on a thread beside this one: most of it is memory that is made zero. */
  createContextBeside(model: Pointer, params: Struct): Promise<Pointer | null>;
  freeContext(context: Pointer): void;
  contextPerSequence(context: Pointer): number;
  batchSize(context: Pointer): number;
  maxSequences(context: Pointer): number;
  memory(context: Pointer): Pointer;
  removeTokens(memory: Pointer, sequence: number, from: number, to: number): boolean;
  copySequence(memory: Pointer, from: number, to: number, start: number, end: number): void;
  stateSize(context: Pointer, sequence: number): number;
  /** Bytes written. */
  saveState(context: Pointer, out: Uint8Array, size: number, sequence: number): number;
  /** Bytes read; 0: the sequence holds nothing now. */
  restoreState(context: Pointer, data: Uint8Array, size: number, sequence: number): number;
  clearMemory(memory: Pointer, data: boolean): void;
  decode(context: Pointer, batch: Struct): number;
  /** Null before a sequence was pooled. */
  pooled(context: Pointer, sequence: number): Pointer | null;
  /** All rows of the last call, where nothing is pooled. */
  embeddings(context: Pointer): Pointer | null;
  embeddingSize(model: Pointer): number;
  classes(model: Pointer): number;
  classLabel(model: Pointer, index: number): string | null;
  trainedContext(model: Pointer): number;
  logits(context: Pointer): Pointer;
  loadAdapter(model: Pointer, path: string): Pointer | null;
  freeAdapter(adapter: Pointer): void;
  /** As many adapters as scales. */
  setAdapters(context: Pointer, adapters: readonly Pointer[], count: number, scales: Float32Array): number;
  vocabulary(model: Pointer): Pointer;
  vocabularySize(vocabulary: Pointer): number;
  tokenText(vocabulary: Pointer, token: number): string;
  tokenAttributes(vocabulary: Pointer, token: number): number;
  endsGeneration(vocabulary: Pointer, token: number): boolean;
  bos(vocabulary: Pointer): number;
  eos(vocabulary: Pointer): number;
  addsBos(vocabulary: Pointer): boolean;
  addsEos(vocabulary: Pointer): boolean;
  addsSeparator(vocabulary: Pointer): boolean;
  separator(vocabulary: Pointer): number;
  vocabularyType(vocabulary: Pointer): number;
  tokenize(
    vocabulary: Pointer,
    text: Uint8Array,
    length: number,
    out: Int32Array,
    max: number,
    special: boolean,
    parse: boolean,
  ): number;
  piece(vocabulary: Pointer, token: number, out: Uint8Array, length: number, strip: number, special: boolean): number;
}

/** llama_token_attr of llama.h. */
export const TOKEN_CONTROL = 1 << 3;
export const TOKEN_USER_DEFINED = 1 << 4;
export const TOKEN_UNKNOWN = 1 << 0;

let loaded: { readonly wanted: Device; readonly library: Library } | undefined;

/**
 * One set of kernels a process: those of the first call.
 * @throws PlatformError when the libraries are missing, are another version, or nothing here can run them
 */
export function library(wanted: Device = "cpu"): Library {
  loaded ??= { wanted, library: load(locateKernels(wanted), wanted) };
  if (loaded.wanted !== wanted) throw new PlatformError(`this process computes by ${loaded.wanted}, not ${wanted}`);
  return loaded.library;
}

function load(files: KernelFiles, wanted: Device): Library {
  const llama = koffi.load(files.llama);
  silence(llama, koffi.load(files.ggmlBase));
  const gpus = loadBackends(files);
  if (gpus === 0 && wanted !== "auto" && wanted !== "cpu")
    throw new PlatformError(`no ${wanted} device was found on this machine: is its driver installed?`);
  defineStructs();
  const pools = new Threadpools(llama, koffi.load(files.ggml), koffi.load(files.ggmlBase));
  const attachThreads: Library["attachThreads"] = (context, threads) => pools.attach(context, threads);
  const bound = { ...bind(llama), attachThreads, gpus: files.device === "cpu" ? 0 : gpus };
  checkLayout(bound);
  llama.func("void llama_backend_init()")();
  return bound;
}

/** llama.cpp logs through a C callback. A native function that does nothing with its arguments stands in: no JavaScript. */
function silence(llama: LibraryHandle, base: LibraryHandle): void {
  // ggml_log_set(callback, user): ggml_threadpool_params_match(p0, p1) would read memory, so a leaf that ignores all is used.
  const sink = llama.symbol("llama_time_us", "void *");
  llama.func("void llama_log_set(void *callback, void *user)")(sink, null);
  base.func("void ggml_log_set(void *callback, void *user)")(sink, null);
}

/** GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU. */
const GPU_TYPES: ReadonlySet<number> = new Set([1, 2]);

/** @returns how many GPUs there are */
function loadBackends({ ggml: path, ggmlBase, directory, fallback }: KernelFiles): number {
  const ggml = koffi.load(path);
  const loadAll = ggml.func("void ggml_backend_load_all_from_path(const char *directory)");
  const typeOf = koffi.load(ggmlBase).func("int ggml_backend_dev_type(void *device)");
  const deviceAt = ggml.func("void *ggml_backend_dev_get(size_t index)");
  const count = (): number => Number(ggml.func("size_t ggml_backend_dev_count()")());
  const gpus = (): number =>
    Array.from({ length: count() }, (_, at) => typeOf(deviceAt(at))).filter((type) => GPU_TYPES.has(type)).length;
  loadAll(directory);
  if (gpus() === 0 && fallback !== undefined) loadAll(fallback);
  if (count() === 0)
    throw new PlatformError(
      "no kernel variant fits this processor (the CPU lacks the instructions that all of them need)",
    );
  return gpus();
}

function bind(llama: LibraryHandle): Omit<Library, "gpus" | "attachThreads"> {
  const f = (declaration: string) => llama.func(declaration) as unknown as (...args: never[]) => never;
  const createContext = llama.func("void *llama_init_from_model(void *model, llama_context_params params)");
  return {
    maxDevices: f("size_t llama_max_devices()"),
    version: f("const char *llama_version()"),
    modelDefaults: f("llama_model_params llama_model_default_params()"),
    contextDefaults: f("llama_context_params llama_context_default_params()"),
    loadModel: f("void *llama_model_load_from_file(const char *path, llama_model_params params)"),
    freeModel: f("void llama_model_free(void *model)"),
    createContext,
    createContextBeside: promisify(createContext.async) as unknown as Library["createContextBeside"],
    freeContext: f("void llama_free(void *context)"),
    contextPerSequence: f("uint32_t llama_n_ctx_seq(void *context)"),
    batchSize: f("uint32_t llama_n_batch(void *context)"),
    maxSequences: f("uint32_t llama_n_seq_max(void *context)"),
    memory: f("void *llama_get_memory(void *context)"),
    removeTokens: f("bool llama_memory_seq_rm(void *memory, int32_t sequence, int32_t from, int32_t to)"),
    copySequence: f("void llama_memory_seq_cp(void *memory, int32_t from, int32_t to, int32_t start, int32_t end)"),
    stateSize: f("size_t llama_state_seq_get_size(void *context, int32_t sequence)"),
    saveState: f("size_t llama_state_seq_get_data(void *context, _Out_ uint8_t *out, size_t size, int32_t sequence)"),
    restoreState: f(
      "size_t llama_state_seq_set_data(void *context, const uint8_t *data, size_t size, int32_t sequence)",
    ),
    clearMemory: f("void llama_memory_clear(void *memory, bool data)"),
    pooled: f("void *llama_get_embeddings_seq(void *context, int32_t sequence)"),
    embeddings: f("void *llama_get_embeddings(void *context)"),
    embeddingSize: f("int32_t llama_model_n_embd_out(void *model)"),
    classes: f("uint32_t llama_model_n_cls_out(void *model)"),
    classLabel: f("const char *llama_model_cls_label(void *model, uint32_t index)"),
    trainedContext: f("int32_t llama_model_n_ctx_train(void *model)"),
    decode: f("int32_t llama_decode(void *context, llama_batch batch)"),
    logits: f("void *llama_get_logits(void *context)"),
    loadAdapter: f("void *llama_adapter_lora_init(void *model, const char *path)"),
    freeAdapter: f("void llama_adapter_lora_free(void *adapter)"),
    setAdapters: f("int32_t llama_set_adapters_lora(void *context, void **adapters, size_t count, float *scales)"),
    vocabulary: f("void *llama_model_get_vocab(void *model)"),
    vocabularySize: f("int32_t llama_vocab_n_tokens(void *vocabulary)"),
    tokenText: f("const char *llama_vocab_get_text(void *vocabulary, int32_t token)"),
    tokenAttributes: f("int32_t llama_vocab_get_attr(void *vocabulary, int32_t token)"),
    endsGeneration: f("bool llama_vocab_is_eog(void *vocabulary, int32_t token)"),
    bos: f("int32_t llama_vocab_bos(void *vocabulary)"),
    eos: f("int32_t llama_vocab_eos(void *vocabulary)"),
    addsBos: f("bool llama_vocab_get_add_bos(void *vocabulary)"),
    addsEos: f("bool llama_vocab_get_add_eos(void *vocabulary)"),
    addsSeparator: f("bool llama_vocab_get_add_sep(void *vocabulary)"),
    separator: f("int32_t llama_vocab_sep(void *vocabulary)"),
    vocabularyType: f("int32_t llama_vocab_type(void *vocabulary)"),
    tokenize: f(
      "int32_t llama_tokenize(void *vocabulary, const uint8_t *text, int32_t length, _Out_ int32_t *out, int32_t max, bool special, bool parse)",
    ),
    piece: f(
      "int32_t llama_token_to_piece(void *vocabulary, int32_t token, _Out_ uint8_t *out, int32_t length, int32_t strip, bool special)",
    ),
  };
}
