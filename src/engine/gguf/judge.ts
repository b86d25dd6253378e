/**
 * Refuses headers whose numbers, tokens or tensors make libllama abort (GGML_ASSERT, an exception through C, a read
 * through a null function) instead of saying no. Each rule stands for a file that killed a process; what libllama
 * refuses by itself is left to it. Pure; called by header.ts. Source: llama-model.cpp, llama-vocab.cpp and ggml-cpu of
 * llama.cpp v0.5.0; test/attack/gguf.test.ts holds the files.
 */
import { GgufError } from "./errors.ts";
import type { TensorInfo } from "./header.ts";

/** What was read of the metadata. */
export interface Metadata {
  readonly scalars: ReadonlyMap<string, number | boolean | string>;
  readonly arrayLengths: ReadonlyMap<string, number>;
  /** Arrays of numbers, where they are short. */
  readonly numbers: ReadonlyMap<string, readonly number[]>;
  readonly tokens: TokenFacts | undefined;
}

export interface TokenFacts {
  /** Whether a text stands twice; empty ones do not count. */
  readonly repeated: boolean;
  /** Whether every byte has a token, "<0x41>" or the byte itself. */
  readonly bytes: boolean;
}

const MAX_LAYERS = 512; // LLAMA_MAX_LAYERS
const MAX_EXPERTS = 1024; // LLAMA_MAX_EXPERTS
const ROPE_SCALINGS = ["none", "linear", "yarn", "longrope"];
const EPSILONS = ["layer_norm_rms_epsilon", "layer_norm_epsilon", "group_norm_epsilon"];
/** Architectures that assert that they have experts. */
const EXPERTS_ONLY = ["smallthinker"];

function refuse(message: string): never {
  throw new GgufError("malformed", message);
}

/** @param raw texts of the tokens, a character a byte */
export function tokenFacts(raw: readonly string[]): TokenFacts {
  const all = new Set(raw);
  const empty = raw.reduce((count, text) => count + (text === "" ? 1 : 0), 0);
  const spelling = (byte: number): string => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
  const bytes = Array.from({ length: 256 }, (_, byte) => all.has(spelling(byte)) || all.has(String.fromCharCode(byte)));
  return { repeated: all.size + Math.max(0, empty - 1) < raw.length, bytes: bytes.every(Boolean) };
}

/** @throws GgufError */
export function judgeMetadata(architecture: string, metadata: Metadata): void {
  judgeTokens(metadata);
  const { scalars, numbers } = metadata;
  for (const [key, value] of scalars) {
    if (key.startsWith(`${architecture}.`) && typeof value === "number" && !Number.isFinite(value))
      refuse(`${key.slice(0, 100)} is not a finite number`);
  }
  const of = (key: string): number | undefined => {
    const value = scalars.get(`${architecture}.${key}`);
    const listed = numbers.get(`${architecture}.${key}`);
    if (listed !== undefined) return listed.length === 0 ? undefined : Math.max(...listed);
    return typeof value === "number" ? value : undefined;
  };
  judgeLayers(of);
  judgeExperts(architecture, of);
  judgeNumbers(architecture, of);
  const scaling = scalars.get(`${architecture}.rope.scaling.type`);
  if (typeof scaling === "string" && !ROPE_SCALINGS.includes(scaling)) refuse("rope.scaling.type is unknown");
}

type Lookup = (key: string) => number | undefined;

function judgeTokens({ scalars, tokens }: Metadata): void {
  const model = scalars.get("tokenizer.ggml.model");
  if (model === "none" || model === "no_vocab") throw new GgufError("unsupported", "the model has no tokenizer");
  if (tokens === undefined) return;
  if (tokens.repeated) refuse("two tokens of the vocabulary are the same");
  if (model === "llama" && !tokens.bytes)
    throw new GgufError("unsupported", "the tokenizer has no tokens for single bytes, so it cannot encode every text");
}

function judgeLayers(of: Lookup): void {
  const layers = of("block_count");
  if (layers === undefined) return;
  if (layers < 1 || layers > MAX_LAYERS) refuse(`block_count is ${layers}; it lies in 1 … ${MAX_LAYERS}`);
  if ((of("nextn_predict_layers") ?? 0) > layers) refuse("nextn_predict_layers is more than block_count");
}

function judgeExperts(architecture: string, of: Lookup): void {
  const [experts, used] = [of("expert_count") ?? 0, of("expert_used_count") ?? 0];
  const [groups, groupsUsed] = [of("expert_group_count") ?? 0, of("expert_group_used_count") ?? 0];
  if (experts > MAX_EXPERTS) refuse(`expert_count is ${experts}; at most ${MAX_EXPERTS} are supported`);
  if (used > experts) refuse(`expert_used_count is ${used} and there are ${experts} experts`);
  if (experts === 0) {
    if (groups > 0) refuse("there are groups of experts and no experts");
    if (EXPERTS_ONLY.includes(architecture)) refuse("expert_count is missing");
    return;
  }
  if (used < 1) refuse("there are experts and expert_used_count is 0");
  if (groups >= experts) refuse(`${groups} groups of ${experts} experts`);
  if (groups <= 1) return;
  if (experts % groups !== 0) refuse(`${experts} experts cannot be put into ${groups} equal groups`);
  if (groupsUsed < 1 || groupsUsed >= groups) refuse(`expert_group_used_count is ${groupsUsed} of ${groups}`);
}

function judgeNumbers(architecture: string, of: Lookup): void {
  for (const key of EPSILONS) if ((of(`attention.${key}`) ?? 0) < 0) refuse(`attention.${key} is negative`);
  if ((of("rope.freq_base") ?? 1) <= 0) refuse("rope.freq_base is not positive");
  const [width, heads] = [of("embedding_length") ?? 0, of("attention.head_count") ?? 0];
  const headWidth = of("attention.key_length") ?? (heads > 0 ? Math.floor(width / heads) : 0);
  const rotated = of("rope.dimension_count") ?? headWidth;
  if (rotated % 2 !== 0) refuse(`${architecture} rotates pairs of dimensions, and there are ${rotated}`);
}

const F32 = 0;
const I32 = 26;
const HALVES = [1, 30];
/** Q8_1 and Q8_K are for activations; integers and doubles have no product. */
const NO_WEIGHTS = [9, 15, 24, 25, 27, 28];
const MATRICES = /(^|\.)(token_embd|output|attn_(q|k|v|qkv|output)|ffn_(gate|up|down))\.weight$/;
const NORM = /norm\.weight$/;

/** @throws GgufError */
export function judgeTensors(tensors: ReadonlyMap<string, TensorInfo>): void {
  for (const [name, { shape, type }] of tensors) {
    if (NO_WEIGHTS.includes(type) || (type === I32 && MATRICES.test(name)))
      throw new GgufError("unsupported", `tensor type ${type} cannot be computed with`);
    const vector = shape.filter((size) => size > 1).length < 2;
    if (!vector || type === F32 || (type === I32 && !NORM.test(name))) continue;
    if (NORM.test(name) || !HALVES.includes(type))
      throw new GgufError("unsupported", `a vector of tensor type ${type} cannot be computed with`);
  }
}
