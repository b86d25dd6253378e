/**
 * POST /pause, /resume, /sleep, /wake_up, /abort_requests, /scale_elastic_ep, /is_scaling_elastic_ep, /reset_prefix_cache,
 * /reset_mm_cache, /reset_encoder_cache; GET /is_paused, /is_sleeping: on the operations listener.
 *
 * All but /abort_requests concern every tenant, so they are for principals of the operator's tenant. Wall: T93.
 */
import { key, operatorKey } from "#http/access.ts";
import { empty, json } from "#http/reply.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import { openai } from "#wire/openai/dialect.ts";
import {
  AbortBody,
  decodeAbort,
  decodePause,
  decodeReset,
  decodeSleep,
  decodeWake,
  IsPausedReply,
  IsScalingReply,
  IsSleepingReply,
  MessageReply,
  PauseQuery,
  ResetPrefixQuery,
  ScaleBody,
  SleepQuery,
  StatusReply,
  WakeQuery,
} from "#wire/vllm/operations.ts";
import { failures, late } from "./_answers.ts";
import { KIB, MINUTE, route, SECOND } from "./_services.ts";

const common = { dialect: openai, access: operatorKey("ops"), plane: "ops", audit: "metadata" } as const;
const asks = { ...common, method: "GET", limits: { timeoutMs: 30 * SECOND } } as const;
const acts = { ...common, method: "POST", limits: { timeoutMs: 5 * MINUTE } } as const;

const done: ReplyDeclaration = { status: 200, contentType: null, doc: "Done." };
const status: ReplyDeclaration = {
  status: 200,
  contentType: "application/json",
  schema: StatusReply,
  doc: "What the engine is now.",
};

export const pause = route({
  ...acts,
  path: "/pause",
  query: PauseQuery,
  reply: [status, late, ...failures],
  doc: "Begin no more work; what comes waits until /resume.",
  handler: async ({ caller, query, services }) => {
    const { mode, clearCache } = decodePause(query);
    await services.operations.engine.pause(caller, mode, clearCache);
    return json({ status: "paused" });
  },
});

export const resume = route({
  ...acts,
  path: "/resume",
  reply: [status, late, ...failures],
  doc: "Go on after a pause; it also calls off a pause or a sleep that still waits.",
  handler: async ({ caller, services }) => {
    await services.operations.engine.resume(caller);
    return json({ status: "resumed" });
  },
});

export const isPaused = route({
  ...asks,
  path: "/is_paused",
  reply: [
    { status: 200, contentType: "application/json", schema: IsPausedReply, doc: "Whether work is held." },
    ...failures,
  ],
  doc: "Whether the engine is paused.",
  handler: ({ caller, services }) => json({ is_paused: services.operations.engine.isPaused(caller) }),
});

export const sleep = route({
  ...acts,
  path: "/sleep",
  switchedBy: "enableSleepMode",
  query: SleepQuery,
  reply: [done, late, ...failures],
  doc: "Pause, and give the memory of the weights and the KV cache back.",
  handler: async ({ caller, query, services }) => {
    const { level, mode } = decodeSleep(query);
    await services.operations.engine.sleep(caller, level, mode);
    return empty();
  },
});

export const wakeUp = route({
  ...acts,
  path: "/wake_up",
  switchedBy: "enableSleepMode",
  query: WakeQuery,
  repeats: ["tags"],
  reply: [done, late, ...failures],
  doc: "Take the memory again, and go on.",
  handler: async ({ caller, query, services }) => {
    await services.operations.engine.wake(caller, decodeWake(query));
    return empty();
  },
});

export const isSleeping = route({
  ...asks,
  path: "/is_sleeping",
  switchedBy: "enableSleepMode",
  reply: [
    { status: 200, contentType: "application/json", schema: IsSleepingReply, doc: "Also true while only paused." },
    ...failures,
  ],
  doc: "Whether the engine sleeps.",
  handler: ({ caller, services }) => json({ is_sleeping: services.operations.engine.isSleeping(caller) }),
});

export const abortRequests = route({
  ...acts,
  path: "/abort_requests",
  access: key("ops"),
  limits: { bodyBytes: 1024 * KIB, timeoutMs: 30 * SECOND },
  body: AbortBody,
  reply: [done, ...failures],
  doc: "End answers by their ids, with finish reason abort; other tenants' only for the operator's tenant.",
  handler: ({ caller, body, services }) => {
    services.operations.engine.abort(caller, decodeAbort(body));
    return empty();
  },
});

const DRAIN_SECONDS = 120;

export const scale = route({
  ...acts,
  path: "/scale_elastic_ep",
  limits: { bodyBytes: 64 * KIB, timeoutMs: 10 * MINUTE },
  body: ScaleBody,
  reply: [
    { status: 200, contentType: "application/json", schema: MessageReply, doc: "The engines from now on." },
    late,
    ...failures,
  ],
  doc: "Set the number of engines; one that goes away finishes what it has begun, or stays.",
  handler: async ({ caller, body, services }) => {
    const { new_data_parallel_size: engines, drain_timeout: drain = DRAIN_SECONDS } = body;
    const now = await services.operations.engine.scale(caller, engines, drain * SECOND);
    return json({ message: `Scaled to ${now} data parallel engines` });
  },
});

export const isScaling = route({
  ...acts,
  path: "/is_scaling_elastic_ep",
  limits: asks.limits,
  reply: [
    { status: 200, contentType: "application/json", schema: IsScalingReply, doc: "Whether the number changes." },
    ...failures,
  ],
  doc: "Whether engines are being added or taken away.",
  handler: ({ caller, services }) => json({ is_scaling_elastic_ep: services.operations.engine.isScaling(caller) }),
});

export const resetPrefixCache = route({
  ...acts,
  path: "/reset_prefix_cache",
  query: ResetPrefixQuery,
  reply: [done, late, ...failures],
  doc: "Forget all prefixes; where something runs its engine keeps them, unless told otherwise.",
  handler: async ({ caller, query, services }) => {
    await services.operations.engine.resetPrefixCache(caller, decodeReset(query));
    return empty();
  },
});

export const resetMmCache = nothingKept("/reset_mm_cache", "processed media");
export const resetEncoderCache = nothingKept("/reset_encoder_cache", "encoded media");

/** Nothing is kept between two requests, so it is always as after a reset. */
function nothingKept(path: `/${string}`, what: string) {
  return route({
    ...acts,
    path,
    limits: asks.limits,
    reply: [done, ...failures],
    doc: `Forget ${what}: none are kept here, so there is nothing to forget.`,
    handler: () => empty(),
  });
}
