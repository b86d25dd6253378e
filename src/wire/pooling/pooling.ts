/**
 * POST /pooling, after vLLM's PoolingRequest (vllm/entrypoints/pooling/pooling/protocol.py).
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import type { PoolTask } from "#core/pool.ts";
import type { PoolAnswer, PoolCall } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { int, shape } from "#wire/openai/_fields.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { basicFields, decodeOptions, decodeSource, sourceFields } from "./_fields.ts";
import { PoolUsageReply } from "./_usage.ts";
import type { DecodedVectors } from "./embeddings.ts";
import { decodeFormat, formatFields, type Heading, listText, type VectorFormat } from "./vectors.ts";

/** vLLM's tasks that are done here. */
const TASKS: Readonly<Record<string, PoolTask>> = {
  embed: "embed",
  token_embed: "token_embed",
  classify: "classify",
};

export const PoolingBody = z.object({
  ...basicFields,
  ...sourceFields,
  ...formatFields,
  dimensions: int.nullish(),
  task: z
    .string()
    .nullish()
    .meta({ enum: Object.keys(TASKS) }),
  data: shape({ description: "For plugins, of which there are none: refused with 400." }),
});

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodePooling(body: z.infer<typeof PoolingBody>, caps: RequestCaps): DecodedVectors {
  const options = decodeOptions(body);
  if (body.data !== undefined) throw invalid("data", "data is for input processor plugins, and this server has none.");
  const source = decodeSource(body, caps);
  const call = dropAbsent<PoolCall>({
    ...options,
    task: decodeTask(body.task),
    api: "Pooling",
    source,
    dimensions: body.dimensions ?? undefined,
    packed: undefined,
  });
  return { call, format: decodeFormat(body, source.kind === "prompts" ? source.prompts.length : 1) };
}

function decodeTask(task: string | null | undefined): PoolTask | undefined {
  if (task === undefined || task === null) return undefined;
  const known = Object.hasOwn(TASKS, task) ? TASKS[task] : undefined;
  if (known === undefined)
    throw invalid("task", `task must be one of ${Object.keys(TASKS).join(", ")}; others are not served here.`);
  return known;
}

const numbers = z.array(z.number());

export const PoolingReply = z.object({
  id: z.string().startsWith("pool-"),
  object: z.literal("list"),
  created: z.int(),
  model: z.string(),
  data: z.array(
    z.object({
      index: z.int().min(0),
      object: z.literal("pooling"),
      data: z.union([numbers, z.array(numbers), z.string()]),
    }),
  ),
  usage: PoolUsageReply,
});

/** The answer's JSON text. */
export function encodePooling(answer: PoolAnswer, heading: Heading, format: VectorFormat): Promise<string> {
  return listText(answer, heading, format, { object: "pooling", field: "data" });
}
