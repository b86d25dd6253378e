/**
 * Requests and facts for the tests of pooling. Tests only.
 */
import type { PoolingInfo, PoolRequest } from "#core/pool.ts";
import type { EngineLimits } from "#engine/engine.ts";
import { NO_PREFIX_CACHE } from "#engine/prefix/hash.ts";

export const EMBEDS: PoolingInfo = {
  tasks: ["embed", "token_embed"],
  type: "mean",
  embeddingSize: 8,
  classes: 0,
  labels: [],
  head: "logits",
  matryoshka: undefined,
  defaults: { useActivation: true },
};

export const CLASSIFIES: PoolingInfo = {
  ...EMBEDS,
  tasks: ["classify"],
  type: "rank",
  classes: 3,
  labels: ["calm", "glad", "sad"],
};

export const LIMITS: EngineLimits = {
  maxNumSeqs: 8,
  maxNumBatchedTokens: 64,
  contextLength: 64,
  schedulingPolicy: "fcfs",
  prefixCache: NO_PREFIX_CACHE,
};

export function poolRequest(inputs: readonly (readonly number[])[], changes: Partial<PoolRequest> = {}): PoolRequest {
  return { id: "r", task: "embed", inputs: inputs.map((tokens) => Int32Array.from(tokens)), priority: 0, ...changes };
}
