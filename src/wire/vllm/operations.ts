/**
 * Pausing, sleeping, scaling, caches and aborting, after vllm/entrypoints/serve/{rlhf,sleep,elastic_ep,cache,disagg}.
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import { PAUSE_MODES, type PauseMode, WAKE_TAGS, type WakeTag } from "#core/operations.ts";
import { shape } from "#wire/openai/_fields.ts";

const MOST_IDS = 1024;
const LONGEST_ID = 512;

/** A switch in a query, as pydantic reads it. */
export function flag(fallback: boolean, doc: string) {
  return z
    .string()
    .regex(/^(?:true|false|1|0|yes|no|on|off)$/i, "takes true or false")
    .meta({ type: "boolean", default: fallback, description: doc })
    .optional()
    .transform((text) => (text === undefined ? fallback : /^(?:true|1|yes|on)$/i.test(text)));
}

const mode = z.enum(PAUSE_MODES).optional();

export const PauseQuery = z.object({
  mode: mode.meta({ description: "abort ends what runs, wait lets it finish, keep freezes it. Default abort." }),
  wait_for_inflight_requests: flag(false, "Deprecated: mode wait.").meta({ deprecated: true }),
  clear_cache: flag(true, "Forget all prefixes."),
});

export const ResetPrefixQuery = z.object({
  reset_running_requests: flag(false, "What runs goes back to the queue first, and is computed again."),
  reset_external: flag(false, "There is no external cache: only false."),
});

export const SleepQuery = z.object({
  level: z
    .enum(["0", "1", "2"])
    .optional()
    .meta({ description: "0 only pauses; 1 and 2 give the weights and the KV cache back. Default 1." }),
  mode,
});

export const WakeQuery = z.object({
  tags: z.array(z.enum(WAKE_TAGS)).max(8).optional().meta({ description: "May be repeated. Absent: all." }),
});

export const StatusReply = z.object({ status: z.string() });
export const IsPausedReply = z.object({ is_paused: z.boolean() });
export const IsSleepingReply = z.object({ is_sleeping: z.boolean() });
export const IsScalingReply = z.object({ is_scaling_elastic_ep: z.boolean() });
export const MessageReply = z.object({ message: z.string() });

export const ScaleBody = z.object({
  new_data_parallel_size: z.int().gte(1).lte(64).meta({ description: "Engines from then on." }),
  drain_timeout: z
    .int()
    .gte(1)
    .lte(300)
    .optional()
    .meta({ description: "Seconds that an engine which goes away has for what it has begun. Default 120." }),
});

export const AbortBody = z.object({
  request_ids: shape({
    type: "array",
    items: { type: "string" },
    maxItems: MOST_IDS,
    description: "Ids of answers, such as chatcmpl-….",
  }),
});

export const RpcBody = z.object({
  method: z.string().min(1).max(256),
  args: shape({ type: "array", maxItems: 0, description: "Only empty." }),
  kwargs: shape({ type: "object", maxProperties: 0, description: "Only empty." }),
  timeout: z.number().gt(0).lte(240).nullish().meta({ description: "Seconds." }),
});
export const RpcReply = z.object({ results: z.array(z.unknown()) });

export interface PauseCall {
  readonly mode: PauseMode;
  readonly clearCache: boolean;
}

/** @throws Fault invalid_request */
export function decodePause(query: z.output<typeof PauseQuery>): PauseCall {
  const { mode: asked, wait_for_inflight_requests: waits, clear_cache: clearCache } = query;
  if (waits && asked !== undefined && asked !== "wait")
    throw invalid("wait_for_inflight_requests", "wait_for_inflight_requests and mode contradict each other.");
  return { mode: asked ?? (waits ? "wait" : "abort"), clearCache };
}

/** @throws Fault invalid_request */
export function decodeReset(query: z.output<typeof ResetPrefixQuery>): boolean {
  if (query.reset_external) throw invalid("reset_external", "There is no external cache.");
  return query.reset_running_requests;
}

export function decodeSleep({ level = "1", mode: asked = "abort" }: z.output<typeof SleepQuery>): {
  readonly level: 0 | 1 | 2;
  readonly mode: PauseMode;
} {
  return { level: level === "0" ? 0 : level === "1" ? 1 : 2, mode: asked };
}

export function decodeWake({ tags }: z.output<typeof WakeQuery>): readonly WakeTag[] | undefined {
  return tags;
}

/** @throws Fault invalid_request */
export function decodeAbort({ request_ids: ids }: z.output<typeof AbortBody>): readonly string[] {
  if (!Array.isArray(ids)) throw invalid("request_ids", "request_ids is a list of ids.");
  if (ids.length > MOST_IDS) throw invalid("request_ids", `request_ids has ${MOST_IDS} ids at most.`);
  return ids.map((id: unknown, at) => {
    if (typeof id === "string" && id.length > 0 && id.length <= LONGEST_ID) return id;
    throw invalid(`request_ids.${at}`, `An id is a text of 1 to ${LONGEST_ID} characters.`);
  });
}

/** @throws Fault invalid_request */
export function decodeRpc({ method, args, kwargs, timeout }: z.output<typeof RpcBody>): {
  readonly method: string;
  readonly seconds: number | undefined;
} {
  if (!isEmpty(args)) throw invalid("args", "The methods take no arguments: args is empty.");
  if (!isEmpty(kwargs)) throw invalid("kwargs", "The methods take no arguments: kwargs is empty.");
  return { method, seconds: timeout ?? undefined };
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || (typeof value === "object" && Object.keys(value).length === 0);
}
