/**
 * From the names that PEFT gives tensors, after the modules of Hugging Face's models, to those of a GGUF.
 *
 * A closed list of architectures whose weights llama.cpp's conversion renames and leaves as they are, or of which it
 * moves rows of q and k alone (LlamaModel.permute: rotary pairs side by side instead of half a head apart). What is not
 * in the tables is refused by its name. Pure.
 */
import { RootedFileError as AdapterFileError } from "#integrity/_rooted-file.ts";

export interface PeftName {
  /** The module as PEFT's patterns mean it. */
  readonly module: string;
  /** The GGUF's weight. */
  readonly target: string;
  readonly side: "a" | "b";
  /** Of the token embedding: A and B change places. */
  readonly embedding: boolean;
  /** Whose heads' rows are moved. */
  readonly heads: "q" | "k" | undefined;
}

type Modules = Readonly<Record<string, string>>;

const SPLIT: Modules = {
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};
const FUSED: Modules = {
  "self_attn.qkv_proj": "attn_qkv",
  "self_attn.o_proj": "attn_output",
  "mlp.gate_up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

interface Family {
  readonly modules: Modules;
  readonly permuted: boolean;
}

const PERMUTED: Family = { modules: SPLIT, permuted: true };
const PLAIN: Family = { modules: SPLIT, permuted: false };

/** general.architecture → how its weights were made. */
const FAMILIES: ReadonlyMap<string, Family> = new Map([
  ...["arcee", "granite", "granitemoe", "llama", "minicpm", "mistral3", "nanbeige", "olmo"].map(
    (name) => [name, PERMUTED] as const,
  ),
  ...["cohere2", "command-r", "gemma", "gemma2", "gemma3", "olmo2", "qwen2", "qwen2moe", "qwen3", "qwen3moe"].map(
    (name) => [name, PLAIN] as const,
  ),
  ["seed_oss", PLAIN],
  ["phi3", { modules: FUSED, permuted: false }],
]);

/** Their embedding has a factor inside, which versions of PEFT treat in different ways. */
const SCALED_EMBEDDINGS: ReadonlySet<string> = new Set(["gemma3"]);

const PREFIX = "base_model.model.";
const PAIR = /^(.+)\.lora_(A|B)\.weight$/;
const EMBEDDING = /^(.+)\.lora_embedding_(A|B)$/;
const LAYER = /^model\.layers\.(0|[1-9][0-9]{0,3})\.(.+)$/;
/** What models that see or hear have in front of their text model's names. */
const TEXT_MODEL: readonly (readonly [string, string])[] = [
  ["model.language_model.", "model."],
  ["language_model.", ""],
];

/** @throws AdapterFileError */
export function peftName(name: string, architecture: string): PeftName {
  const family = FAMILIES.get(architecture);
  if (family === undefined)
    throw new AdapterFileError(
      `adapters in PEFT form are not supported for models of the architecture ${architecture}: convert it to GGUF`,
    );
  if (!name.startsWith(PREFIX)) throw refused(name);
  const rest = name.slice(PREFIX.length);
  const embedding = EMBEDDING.exec(rest);
  const [, module = "", letter] = embedding ?? PAIR.exec(rest) ?? [];
  if (letter === undefined) throw refused(name);
  const side = letter === "A" ? "a" : "b";
  const inText = withoutPrefix(module);
  if (embedding !== null) {
    if (inText !== "model.embed_tokens" || SCALED_EMBEDDINGS.has(architecture)) throw refused(name);
    return { module, target: "token_embd.weight", side, embedding: true, heads: undefined };
  }
  if (inText === "lm_head") return { module, target: "output.weight", side, embedding: false, heads: undefined };
  const [, layer = "", part = ""] = LAYER.exec(inText) ?? [];
  const weight = Object.hasOwn(family.modules, part) ? family.modules[part] : undefined;
  if (weight === undefined) throw refused(name);
  const heads = !family.permuted ? undefined : weight === "attn_q" ? "q" : weight === "attn_k" ? "k" : undefined;
  return { module, target: `blk.${layer}.${weight}.weight`, side, embedding: false, heads };
}

function withoutPrefix(module: string): string {
  const found = TEXT_MODEL.find(([prefix]) => module.startsWith(prefix));
  return found === undefined ? module : found[1] + module.slice(found[0].length);
}

/** @param name printable, as the reader of the header makes sure */
function refused(name: string): AdapterFileError {
  const why = name.includes("lora_magnitude_vector") ? "DoRA is not supported" : "nothing of the model is known by it";
  return new AdapterFileError(`adapter_model.safetensors: the tensor ${name.slice(0, 200)} is not taken: ${why}`);
}
