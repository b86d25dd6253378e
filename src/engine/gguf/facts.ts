/**
 * What a GGUF header says about the model, in the words of the rest of the server.
 */
import type { PoolingType } from "#core/pool.ts";
import { ENCODERS } from "./architectures.ts";
import type { GgufHeader, GgufScalar } from "./header.ts";

export interface ModelFacts {
  readonly architecture: string;
  readonly title: string | undefined;
  readonly trainedContext: number;
  readonly chatTemplate: string | undefined;
  /** Of rerankers: the text that a query and a document are put into. */
  readonly rerankTemplate: string | undefined;
  readonly parameters: number;
  readonly vocabularySize: number;
  /** Bytes of K and V that one token needs over all layers, at two bytes a number. */
  readonly kvBytesPerToken: number;
  readonly pooling: PoolingFacts;
}

/** What the header says about pooling; every model can be pooled somehow. */
export interface PoolingFacts {
  /** `<architecture>.pooling_type`, if there is one that means something. */
  readonly declared: PoolingType | undefined;
  /** It does not generate. */
  readonly encoder: boolean;
  /** A token sees only what stands before it, so that a long sequence may be computed piece by piece. */
  readonly causal: boolean;
  /** Numbers of an embedding. */
  readonly embeddingSize: number;
  /** Numbers of the classifier head; 0 where there is none that libllama can run. */
  readonly classes: number;
  readonly labels: readonly string[];
  /** libllama puts a softmax behind the head. */
  readonly softmaxHead: boolean;
}

/** llama_pooling_type of llama.h. */
const POOLING_TYPES: readonly PoolingType[] = ["none", "mean", "cls", "last", "rank"];
/** Heads that end in `cls.output`, and the one that has `cls` alone and one number (llama.cpp, src/models). */
const OUTPUT_HEADS = new Set(["bert", "modern-bert", "neo-bert", "qwen3"]);
const SINGLE_HEADS = new Set(["jina-bert-v2"]);
const SOFTMAX_HEADS = new Set(["qwen3"]);

const KV_ELEMENT_BYTES = 2;

export function modelFacts(header: GgufHeader): ModelFacts {
  const of = (key: string): GgufScalar | undefined => header.metadata.get(`${header.architecture}.${key}`);
  const whole = (key: string, otherwise: number): number => {
    const value = of(key);
    return typeof value === "number" && value > 0 ? value : otherwise;
  };
  const heads = whole("attention.head_count", 1);
  const width = whole("embedding_length", 1);
  const keyWidth = whole("attention.key_length", width / heads);
  const valueWidth = whole("attention.value_length", width / heads);
  // Where heads differ by layer the key holds an array; the plain number of heads is then the safe (larger) guess.
  const kvHeads = whole("attention.head_count_kv", heads);
  return {
    architecture: header.architecture,
    title: text(header.metadata.get("general.name")),
    trainedContext: whole("context_length", 2048),
    chatTemplate: text(header.metadata.get("tokenizer.chat_template")),
    rerankTemplate: text(header.metadata.get("tokenizer.chat_template.rerank")),
    parameters: header.parameters,
    vocabularySize: header.arrayLengths.get("tokenizer.ggml.tokens") ?? 0,
    kvBytesPerToken: whole("block_count", 1) * kvHeads * (keyWidth + valueWidth) * KV_ELEMENT_BYTES,
    pooling: poolingFacts(header),
  };
}

function poolingFacts(header: GgufHeader): PoolingFacts {
  const { architecture, metadata } = header;
  const of = (key: string): GgufScalar | undefined => metadata.get(`${architecture}.${key}`);
  const type = of("pooling_type");
  const width = of("embedding_length_out") ?? of("embedding_length");
  const encoder = ENCODERS.has(architecture);
  return {
    declared: typeof type === "number" ? POOLING_TYPES[type] : undefined,
    encoder,
    causal: !encoder && of("attention.causal") !== false,
    embeddingSize: typeof width === "number" ? width : 0,
    classes: classesOf(header),
    labels: header.labels,
    softmaxHead: SOFTMAX_HEADS.has(architecture),
  };
}

function classesOf({ architecture, tensors, labels }: GgufHeader): number {
  if (OUTPUT_HEADS.has(architecture) && tensors.has("cls.output.weight")) return Math.max(1, labels.length);
  const single = SINGLE_HEADS.has(architecture) && tensors.has("cls.weight");
  return single && labels.length <= 1 ? 1 : 0;
}

function text(value: GgufScalar | undefined): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
