/**
 * What a GGUF header says about the model, in the words of the rest of the server.
 */
import type { GgufHeader, GgufScalar } from "./header.ts";

export interface ModelFacts {
  readonly architecture: string;
  readonly title: string | undefined;
  readonly trainedContext: number;
  readonly chatTemplate: string | undefined;
  readonly parameters: number;
  readonly vocabularySize: number;
  /** Bytes of K and V that one token needs over all layers, at two bytes a number. */
  readonly kvBytesPerToken: number;
}

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
    parameters: header.parameters,
    vocabularySize: header.arrayLengths.get("tokenizer.ggml.tokens") ?? 0,
    kvBytesPerToken: whole("block_count", 1) * kvHeads * (keyWidth + valueWidth) * KV_ELEMENT_BYTES,
  };
}

function text(value: GgufScalar | undefined): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
