/**
 * A pooling call → vectors or classes: /v1/embeddings, /v2/embed, /pooling and /classify.
 */
import { invalid } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import type { PoolingInfo, PoolRequest, PoolTask } from "#core/pool.ts";
import type { PoolAnswer, PoolCall, PoolOptions } from "#core/pool-calls.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { encodeSource } from "./_pool-input.ts";
import { pooled, tokensOf } from "./_pooled.ts";
import { priorityOf } from "./_priority.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";

/** What a model of several tasks does where nobody says. */
const PREFERRED: readonly PoolTask[] = ["embed", "classify", "token_embed"];

/** @throws Fault invalid_request | model_not_found | rate_limited, and as Backend.pool does */
export async function pool(
  grant: Grant<"embeddings">,
  serving: Serving,
  call: PoolCall,
  signal: AbortSignal,
): Promise<PoolAnswer> {
  const model = serving.models.resolve(call.model, grant.principal);
  const tasks = model.backend.model.pooling?.tasks ?? [];
  const wanted = call.task ?? PREFERRED.find((task) => tasks.includes(task)) ?? "embed";
  const info = requireTask(model, wanted, call.api);
  const request = { ...poolRequest(grant, serving, call, wanted), ...dimensionsOf(call) };
  const caps = capsFor(serving.caps, grant.principal.caps);
  const options = { model, truncate: call.truncate, most: caps.poolingTokens, signal };
  const inputs = await encodeSource(call.source, options);
  requireSize(call, info, caps.poolingNumbers, wanted === "token_embed" ? tokensOf(inputs) : inputs.length, wanted);
  const work = { model, request, inputs, meter: grant.meter, observer: serving.observerOf(model) };
  const { outputs, usage } = await pooled(work, signal);
  return { model: model.names[0], task: wanted, outputs, labels: info.labels, usage };
}

/** @throws Fault invalid_request: the model is of another kind */
export function requireTask(model: ServedModel, task: PoolTask, api: string): PoolingInfo {
  const info = model.backend.model.pooling;
  if (info?.tasks.includes(task)) return info;
  throw unsupported(api);
}

export function unsupported(api: string) {
  return invalid("model", `The model does not support ${api} API`);
}

/** What the pieces of a call have in common. @throws Fault invalid_request */
export function poolRequest(
  { principal }: Grant<"embeddings">,
  serving: Serving,
  { priority, callId, useActivation }: PoolOptions,
  task: PoolTask,
): Omit<PoolRequest, "id" | "inputs"> {
  return {
    task,
    priority: priorityOf(priority, principal, serving.priorities),
    share: serving.shareOf(principal),
    ...(callId === undefined ? {} : { callId: ownedKey(principal.tenant, callId) }),
    ...(useActivation === undefined ? {} : { useActivation }),
  };
}

function dimensionsOf({ dimensions }: PoolCall): Pick<PoolRequest, "dimensions"> {
  return dimensions === undefined ? {} : { dimensions };
}

function requireSize(
  { dimensions, packed }: PoolCall,
  info: PoolingInfo,
  most: number,
  rows: number,
  task: PoolTask,
): void {
  const embeds = task === "embed" || task === "token_embed";
  const width = embeds ? (dimensions ?? info.defaults.dimensions ?? info.embeddingSize) : info.classes;
  if (packed && width % 8 !== 0)
    throw invalid("embedding_types", `Binary embeddings need a size that is a multiple of 8; this one is ${width}.`);
  if (rows * width > most)
    throw invalid("input", `The answer would have ${rows * width} numbers; at most ${most} are given at once.`);
}
