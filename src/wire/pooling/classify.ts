/**
 * POST /classify, after vLLM's ClassificationRequest (vllm/entrypoints/pooling/classify/protocol.py).
 */
import { z } from "zod";
import type { PoolAnswer, PoolCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { basicFields, decodeOptions, decodeSource, sourceFields } from "./_fields.ts";
import { PoolUsageReply, poolUsage } from "./_usage.ts";
import type { Heading } from "./vectors.ts";

export const ClassifyBody = z.object({ ...basicFields, ...sourceFields });

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeClassify(body: z.infer<typeof ClassifyBody>, caps: RequestCaps): PoolCall {
  return { ...decodeOptions(body), task: "classify", api: "Classification", source: decodeSource(body, caps) };
}

export const ClassifyReply = z.object({
  id: z.string().startsWith("classify-"),
  object: z.literal("list"),
  created: z.int(),
  model: z.string(),
  data: z.array(
    z.object({
      index: z.int().min(0),
      label: z.string().nullable(),
      probs: z.array(z.number()),
      num_classes: z.int().min(1),
    }),
  ),
  usage: PoolUsageReply,
});

export function encodeClassify(
  { model, outputs, labels, usage }: PoolAnswer,
  { id, created }: Heading,
): z.infer<typeof ClassifyReply> {
  return {
    id,
    object: "list",
    created,
    model,
    data: outputs.map(({ values }, index) => ({
      index,
      label: labels[largest(values)] ?? null,
      probs: Array.from(values),
      num_classes: values.length,
    })),
    usage: poolUsage(usage),
  };
}

/** Of equals the first. */
function largest(values: Float32Array): number {
  return values.reduce((best, value, at) => (value > (values[best] as number) ? at : best), 0);
}
