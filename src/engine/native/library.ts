/**
 * The C functions of libllama that the server uses, as typed TypeScript functions.
 *
 * Source of the declarations: llama.h and ggml-backend.h of llama.cpp v0.5.0. Pointers are koffi's untyped handles.
 * No function here takes a JavaScript callback: compute threads must never enter JavaScript.
 * Used by model.ts, kernel.ts, vocabulary.ts; loaded once per process.
 */
import koffi, { type LibraryHandle } from "koffi";
import { checkLayout, defineStructs } from "./layout.ts";
import { type KernelFiles, locateKernels, PlatformError } from "./locate.ts";

/** A native address. */
export type Pointer = unknown;
export type Struct = Record<string, unknown>;

export interface Library {
  version(): string;
  modelDefaults(): Struct;
  contextDefaults(): Struct;
  loadModel(path: string, params: Struct): Pointer | null;
  freeModel(model: Pointer): void;
  createContext(model: Pointer, params: Struct): Pointer | null;
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
  decode(context: Pointer, batch: Struct): number;
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

let loaded: Library | undefined;

/** @throws PlatformError when the libraries are missing, are another version, or no CPU backend fits the processor */
export function library(): Library {
  loaded ??= load(locateKernels());
  return loaded;
}

function load(files: KernelFiles): Library {
  const llama = koffi.load(files.llama);
  silence(llama, koffi.load(files.ggmlBase));
  loadBackends(files);
  defineStructs();
  const bound = bind(llama);
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

function loadBackends(files: KernelFiles): void {
  const ggml = koffi.load(files.ggml);
  ggml.func("void ggml_backend_load_all_from_path(const char *directory)")(files.directory);
  const count = Number(ggml.func("size_t ggml_backend_dev_count()")());
  if (count === 0)
    throw new PlatformError(
      "no kernel variant fits this processor (the CPU lacks the instructions that all of them need)",
    );
}

function bind(llama: LibraryHandle): Library {
  const f = (declaration: string) => llama.func(declaration) as unknown as (...args: never[]) => never;
  return {
    version: f("const char *llama_version()"),
    modelDefaults: f("llama_model_params llama_model_default_params()"),
    contextDefaults: f("llama_context_params llama_context_default_params()"),
    loadModel: f("void *llama_model_load_from_file(const char *path, llama_model_params params)"),
    freeModel: f("void llama_model_free(void *model)"),
    createContext: f("void *llama_init_from_model(void *model, llama_context_params params)"),
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
    tokenize: f(
      "int32_t llama_tokenize(void *vocabulary, const uint8_t *text, int32_t length, _Out_ int32_t *out, int32_t max, bool special, bool parse)",
    ),
    piece: f(
      "int32_t llama_token_to_piece(void *vocabulary, int32_t token, _Out_ uint8_t *out, int32_t length, int32_t strip, bool special)",
    ),
  };
}
