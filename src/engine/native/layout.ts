/**
 * The structs that cross the border by value, and the check that this library lays them out as declared here.
 *
 * A wrong layout would corrupt memory silently, so at start the version string, the sizes and a set of known default
 * values (spread over the whole struct) are compared. Source: llama.h of llama.cpp v0.5.0.
 */
import koffi from "koffi";
import type { Library, Struct } from "./library.ts";
import { PlatformError } from "./locate.ts";

const VERSION = /^0\.5\.0/;
const SIZES: Readonly<Record<string, number>> = { llama_model_params: 80, llama_context_params: 160, llama_batch: 56 };

let defined = false;

/** Declares the struct types to koffi; once per process. */
export function defineStructs(): void {
  if (defined) return;
  defined = true;
  koffi.struct("llama_model_params", {
    devices: "void *",
    tensor_buft_overrides: "void *",
    n_gpu_layers: "int32_t",
    split_mode: "int32_t",
    load_mode: "int32_t",
    lazy_mode: "int32_t",
    main_gpu: "int32_t",
    tensor_split: "void *",
    progress_callback: "void *",
    progress_callback_user_data: "void *",
    kv_overrides: "void *",
    vocab_only: "bool",
    check_tensors: "bool",
    use_extra_bufts: "bool",
    no_host: "bool",
    no_alloc: "bool",
    load_mtp: "bool",
  });
  koffi.struct("llama_context_params", CONTEXT_FIELDS);
  koffi.struct("llama_batch", {
    n_tokens: "int32_t",
    token: "void *",
    embd: "void *",
    pos: "void *",
    n_seq_id: "void *",
    seq_id: "void *",
    logits: "void *",
  });
}

const CONTEXT_FIELDS = {
  n_ctx: "uint32_t",
  n_batch: "uint32_t",
  n_ubatch: "uint32_t",
  n_seq_max: "uint32_t",
  n_rs_seq: "uint32_t",
  n_outputs_max: "uint32_t",
  n_outputs_max_per_seq: "uint32_t",
  n_threads: "int32_t",
  n_threads_batch: "int32_t",
  ctx_type: "int32_t",
  rope_scaling_type: "int32_t",
  pooling_type: "int32_t",
  attention_type: "int32_t",
  flash_attn_type: "int32_t",
  rope_freq_base: "float",
  rope_freq_scale: "float",
  yarn_ext_factor: "float",
  yarn_attn_factor: "float",
  yarn_beta_fast: "float",
  yarn_beta_slow: "float",
  yarn_orig_ctx: "uint32_t",
  defrag_thold: "float",
  cb_eval: "void *",
  cb_eval_user_data: "void *",
  type_k: "int32_t",
  type_v: "int32_t",
  abort_callback: "void *",
  abort_callback_data: "void *",
  embeddings: "bool",
  offload_kqv: "bool",
  no_perf: "bool",
  op_offload: "bool",
  swa_full: "bool",
  kv_unified: "bool",
  samplers: "void *",
  n_samplers: "size_t",
  ctx_other: "void *",
} as const;

const MODEL_DEFAULTS: Struct = {
  n_gpu_layers: -1,
  split_mode: 1,
  load_mode: -1,
  lazy_mode: 1,
  main_gpu: 0,
  vocab_only: false,
  use_extra_bufts: true,
  load_mtp: false,
};
const CONTEXT_DEFAULTS: Struct = {
  n_ctx: 512,
  n_batch: 2048,
  n_ubatch: 512,
  n_seq_max: 1,
  n_outputs_max_per_seq: 1,
  flash_attn_type: -1,
  yarn_beta_slow: -1,
  defrag_thold: -1,
  type_k: 1,
  type_v: 1,
  offload_kqv: true,
  no_perf: true,
  swa_full: true,
  kv_unified: false,
};

/** @throws PlatformError naming the first thing that differs */
export function checkLayout(library: Omit<Library, "gpus" | "attachThreads">): void {
  const version = library.version();
  if (!VERSION.test(version)) throw new PlatformError(`libllama is version ${version}; these bindings are for 0.5.0`);
  for (const [name, size] of Object.entries(SIZES)) {
    if (koffi.sizeof(name) !== size)
      throw new PlatformError(`${name} takes ${koffi.sizeof(name)} bytes here, not ${size}`);
  }
  compare("model", library.modelDefaults(), MODEL_DEFAULTS);
  compare("context", library.contextDefaults(), CONTEXT_DEFAULTS);
}

function compare(what: string, actual: Struct, expected: Struct): void {
  for (const [field, value] of Object.entries(expected)) {
    if (actual[field] !== value)
      throw new PlatformError(`libllama's ${what} default ${field} is ${actual[field]}, not ${value}: another build`);
  }
}
