/**
 * Files that look like the demo model and are not: every key with every kind of value, lying tensors, vocabularies that
 * do not fit together. One name a case, the same bytes every time. Used by gguf.test.ts.
 */

import { ARCHITECTURES, ENCODERS } from "#engine/gguf/architectures.ts";
import {
  ARRAY,
  BOOL,
  type EditFile,
  type EditValue,
  F32,
  F64,
  type Hostile,
  I32,
  I64,
  putTogether,
  relaid,
  STRING,
  U8,
  U32,
  U64,
  withKey,
  withTensors,
} from "../fixtures/gguf-edit.ts";
import { fileCases, tensorCases } from "./hostile-tensors.ts";
import { vocabularyCases } from "./hostile-vocabulary.ts";

/** Keys of the architecture that llama.cpp reads for some model or other (llama-arch.cpp), without the prefix. */
const HYPERPARAMETERS = [
  "vocab_size",
  "context_length",
  "embedding_length",
  "embedding_length_out",
  "block_count",
  "leading_dense_block_count",
  "feed_forward_length",
  "expert_feed_forward_length",
  "use_parallel_residual",
  "expert_count",
  "expert_used_count",
  "expert_shared_count",
  "expert_group_count",
  "expert_group_used_count",
  "expert_weights_scale",
  "expert_gating_func",
  "moe_every_n_layers",
  "nextn_predict_layers",
  "pooling_type",
  "logit_scale",
  "attn_logit_softcapping",
  "final_logit_softcapping",
  "swin_norm",
  "residual_scale",
  "embedding_scale",
  "attention.head_count",
  "attention.head_count_kv",
  "attention.max_alibi_bias",
  "attention.clamp_kqv",
  "attention.key_length",
  "attention.value_length",
  "attention.layer_norm_epsilon",
  "attention.layer_norm_rms_epsilon",
  "attention.group_norm_groups",
  "attention.causal",
  "attention.q_lora_rank",
  "attention.kv_lora_rank",
  "attention.relative_buckets_count",
  "attention.sliding_window",
  "attention.sliding_window_pattern",
  "attention.scale",
  "attention.temperature_length",
  "attention.temperature_scale",
  "rope.dimension_count",
  "rope.dimension_sections",
  "rope.freq_base",
  "rope.scale_linear",
  "rope.scaling.type",
  "rope.scaling.factor",
  "rope.scaling.attn_factor",
  "rope.scaling.original_context_length",
  "rope.scaling.finetuned",
  "rope.scaling.yarn_log_multiplier",
  "rope.scaling.yarn_ext_factor",
  "ssm.conv_kernel",
] as const;

const SPECIAL_TOKENS = [
  "bos_token_id",
  "eos_token_id",
  "eot_token_id",
  "eom_token_id",
  "unknown_token_id",
  "seperator_token_id",
  "padding_token_id",
  "mask_token_id",
  "cls_token_id",
  "prefix_token_id",
  "suffix_token_id",
  "middle_token_id",
  "fim_pre_token_id",
  "fim_suf_token_id",
  "fim_mid_token_id",
  "fim_pad_token_id",
  "fim_rep_token_id",
  "fim_sep_token_id",
] as const;

const TOKENIZER_KEYS = [
  "model",
  "pre",
  "tokens",
  "token_type",
  "token_type_count",
  "scores",
  "merges",
  "add_bos_token",
  "add_eos_token",
  "add_sep_token",
  "add_space_prefix",
  "remove_extra_whitespaces",
  "precompiled_charsmap",
  ...SPECIAL_TOKENS,
] as const;

const array = (of: number, ...items: (number | bigint | boolean | string)[]): EditValue => ({ type: ARRAY, of, items });

/** Values that a key should not have, mostly. */
const VALUES: Readonly<Record<string, EditValue | undefined>> = {
  absent: undefined,
  "u32 0": { type: U32, value: 0 },
  "u32 1": { type: U32, value: 1 },
  "u32 3": { type: U32, value: 3 },
  "u32 513": { type: U32, value: 513 },
  "u32 65536": { type: U32, value: 65536 },
  "u32 2^31-1": { type: U32, value: 2147483647 },
  "u32 2^31": { type: U32, value: 2147483648 },
  "u32 2^32-1": { type: U32, value: 4294967295 },
  "i32 -1": { type: I32, value: -1 },
  "u64 2^40": { type: U64, value: 2n ** 40n },
  "i64 -1": { type: I64, value: -1n },
  "u8 255": { type: U8, value: 255 },
  "f32 0": { type: F32, value: 0 },
  "f32 nan": { type: F32, value: Number.NaN },
  "f32 inf": { type: F32, value: Infinity },
  "f32 -1": { type: F32, value: -1 },
  "f32 1e30": { type: F32, value: 1e30 },
  "f64 nan": { type: F64, value: Number.NaN },
  "bool true": { type: BOOL, value: true },
  "text empty": { type: STRING, value: "" },
  "text yarn": { type: STRING, value: "yarn" },
  "text longrope": { type: STRING, value: "longrope" },
  "text long": { type: STRING, value: "x".repeat(100_000) },
  "u32[0]": array(U32),
  "u32[1] 0": array(U32, 0),
  "u32[5] 0": array(U32, 0, 0, 0, 0, 0),
  "u32[5] 4,3": array(U32, 4, 3, 5, 0, 4294967295),
  "u32[600]": { type: ARRAY, of: U32, items: new Array(600).fill(4) },
  "i32[4] -1": array(I32, -1, -1, -1, -1),
  "f32[1] nan": array(F32, Number.NaN),
  "bool[5]": array(BOOL, true, false, true, false, true),
  "text[2]": array(STRING, "", "a b"),
  "text[3000]": { type: ARRAY, of: STRING, items: new Array(3000).fill("same") },
};

function keyCases(file: EditFile): Hostile[] {
  const keys = [
    ...HYPERPARAMETERS.map((key) => `llama.${key}`),
    ...TOKENIZER_KEYS.map((key) => `tokenizer.ggml.${key}`),
    "general.alignment",
    "general.type",
    "general.file_type",
    "general.quantization_version",
    "split.no",
    "split.count",
    "split.tensors.count",
    "tokenizer.chat_template",
  ];
  return keys.flatMap((key) =>
    Object.entries(VALUES).map(([name, value]) => ({
      name: `${key} = ${name}`,
      bytes: () => putTogether(withKey(file, key, value)),
    })),
  );
}

/** Numbers that have to fit each other. */
function combinedCases(file: EditFile): Hostile[] {
  const combined = (
    [
      { expert_count: 8, expert_used_count: 2 },
      { expert_count: 512, expert_used_count: 512 },
      { expert_count: 513, expert_used_count: 2 },
      { expert_count: 1024, expert_used_count: 2 },
      { expert_count: 1025, expert_used_count: 2 },
      { expert_count: 2048, expert_used_count: 2 },
      { expert_count: 8, expert_used_count: 9 },
      { expert_count: 8, expert_used_count: 2, expert_group_count: 3 },
      { expert_count: 8, expert_used_count: 2, expert_group_count: 4, expert_group_used_count: 5 },
      { expert_count: 8, expert_used_count: 2, expert_group_count: 4, expert_group_used_count: 0 },
      { expert_count: 8, expert_used_count: 2, expert_group_count: 8, expert_group_used_count: 1 },
      { expert_count: 8, expert_used_count: 2, expert_group_count: 16, expert_group_used_count: 1 },
      { block_count: 512 },
      { block_count: 4 },
      { block_count: 5, nextn_predict_layers: 5 },
      { block_count: 5, nextn_predict_layers: 1 },
      { "attention.head_count": 0, "attention.head_count_kv": 0 },
      { "attention.head_count": 4, "attention.head_count_kv": 0 },
      { "attention.head_count": 4, "attention.head_count_kv": 3 },
      { "attention.head_count": 4, "attention.head_count_kv": 8 },
      { "attention.head_count": 8, "attention.head_count_kv": 8 },
      { "attention.head_count": 8, "attention.head_count_kv": 8, "rope.dimension_count": 24 },
      { "attention.head_count": 192, "attention.head_count_kv": 192, "rope.dimension_count": 1 },
      { "attention.key_length": 0, "attention.value_length": 0 },
      { "attention.key_length": 24, "attention.value_length": 96 },
      { "attention.key_length": 48, "attention.value_length": 48, "rope.dimension_count": 0 },
      { "attention.key_length": 47, "rope.dimension_count": 47 },
      { "rope.dimension_count": 46 },
      { "rope.dimension_count": 96 },
    ] as const
  ).map((numbers) => ({
    name: Object.entries(numbers).join(" ").replaceAll(",", " "),
    bytes: () =>
      putTogether(
        Object.entries(numbers).reduce(
          (made, [key, value]) => withKey(made, `llama.${key}`, { type: U32, value: Number(value) }),
          file,
        ),
      ),
  }));
  return combined;
}

function renamed(file: EditFile, architecture: string): EditFile {
  const metadata = file.metadata.map(([key, value]) => [key.replace(/^llama\./, `${architecture}.`), value] as const);
  return withKey({ ...file, metadata }, "general.architecture", { type: STRING, value: architecture });
}

/** The same weights under every architecture's name. */
function architectureCases(file: EditFile): Hostile[] {
  return [...ARCHITECTURES, ...ENCODERS].map((architecture) => ({
    name: `architecture ${architecture}`,
    bytes: () => putTogether(renamed(file, architecture)),
  }));
}

/** All of them, in a fixed order. */
export function hostileFiles(file: EditFile): Hostile[] {
  return [
    ...fileCases(file),
    ...tensorCases(file),
    ...vocabularyCases(file),
    ...architectureCases(file),
    ...combinedCases(file),
    ...keyCases(file),
  ];
}

/** Numbers in [0, below), the same for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** One file of endlessly many: several lies at once, and bits of the header turned over. */
export function randomHostile(file: EditFile, seed: number): Hostile {
  const random = generator(seed);
  const one = <T>(items: readonly T[]): T => items[random(items.length)] as T;
  return {
    name: `random ${seed}`,
    bytes: () => {
      let made = file;
      let prefix = "llama";
      if (random(3) === 0) {
        prefix = one([...ARCHITECTURES, ...ENCODERS]);
        made = renamed(made, prefix);
      }
      for (let count = random(4); count > 0; count--) {
        const key = random(3) > 0 ? `${prefix}.${one(HYPERPARAMETERS)}` : `tokenizer.ggml.${one(TOKENIZER_KEYS)}`;
        made = withKey(made, key, VALUES[one(Object.keys(VALUES))]);
      }
      if (random(2) === 0) {
        const [name, type] = [one(made.tensors).name, random(44)];
        const shape = one([[192], [192, 192], [192, 384], [384, 192], [64, 2048], [1, 1, 192], [48]]);
        made = relaid(withTensors(made, (tensor) => (tensor.name === name ? { ...tensor, type, shape } : tensor)));
      }
      const bytes = putTogether(made);
      const header = bytes.length - made.data.length;
      for (let count = random(3); count > 0; count--) {
        const at = random(header);
        bytes[at] = (bytes[at] as number) ^ (1 << random(8));
      }
      return bytes;
    },
  };
}
