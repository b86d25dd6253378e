/**
 * POST /v1/embeddings, after vLLM's EmbeddingRequest (vllm/entrypoints/pooling/embed/protocol.py).
 */
import { z } from "zod";
import type { PoolAnswer, PoolCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { int } from "#wire/openai/_fields.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { basicFields, decodeOptions, decodeSource, sourceFields } from "./_fields.ts";
import { PoolUsageReply } from "./_usage.ts";
import { decodeFormat, formatFields, type Heading, listText, type VectorFormat } from "./vectors.ts";

/** `input`, or one conversation in `messages`. */
export const EmbeddingsBody = z.object({
  ...basicFields,
  ...sourceFields,
  ...formatFields,
  dimensions: int.nullish(),
});

export interface DecodedVectors {
  readonly call: PoolCall;
  readonly format: VectorFormat;
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeEmbeddings(body: z.infer<typeof EmbeddingsBody>, caps: RequestCaps): DecodedVectors {
  const options = decodeOptions(body);
  const source = decodeSource(body, caps);
  const call = dropAbsent<PoolCall>({
    ...options,
    task: "embed",
    api: "Embeddings",
    source,
    dimensions: body.dimensions ?? undefined,
    packed: undefined,
  });
  return { call, format: decodeFormat(body, source.kind === "prompts" ? source.prompts.length : 1) };
}

export const EmbeddingsReply = z.object({
  id: z.string().startsWith("embd-"),
  object: z.literal("list"),
  created: z.int(),
  model: z.string(),
  data: z.array(
    z.object({
      index: z.int().min(0),
      object: z.literal("embedding"),
      embedding: z.union([z.array(z.number()), z.string()]),
    }),
  ),
  usage: PoolUsageReply,
});

/** The answer's JSON text. */
export function encodeEmbeddings(answer: PoolAnswer, heading: Heading, format: VectorFormat): Promise<string> {
  return listText(answer, heading, format, { object: "embedding", field: "embedding" });
}
