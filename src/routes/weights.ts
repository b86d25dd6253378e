/**
 * POST /init_weight_transfer_engine, /start_weight_update, /update_weights, /finish_weight_update; GET /get_world_size: on
 * the operations listener, with --weight-roots only.
 */
import { operatorKey } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { openai } from "#wire/openai/dialect.ts";
import { MessageReply } from "#wire/vllm/operations.ts";
import {
  checkInit,
  checkStart,
  decodeUpdate,
  InitWeightsBody,
  StartWeightsBody,
  UpdateWeightsBody,
  WorldSizeQuery,
  WorldSizeReply,
} from "#wire/vllm/weights.ts";
import { failures, late } from "./_answers.ts";
import { KIB, MINUTE, route, SECOND } from "./_services.ts";

const common = {
  dialect: openai,
  access: operatorKey("weights"),
  plane: "ops",
  switchedBy: "weightRoots",
  audit: "metadata",
} as const;
const acts = {
  ...common,
  method: "POST",
  reply: [
    { status: 200, contentType: "application/json", schema: MessageReply, doc: "What was done." },
    late,
    ...failures,
  ],
} as const;
const quick = { bodyBytes: 64 * KIB, timeoutMs: 30 * SECOND };
/** A large file is read whole for its digest. */
const long = 10 * MINUTE;

export const initWeights = route({
  ...acts,
  path: "/init_weight_transfer_engine",
  limits: quick,
  body: InitWeightsBody,
  doc: "Say how weights will come: from files, which needs no preparation.",
  handler: ({ body }) => {
    checkInit(body);
    return json({ message: "Weight transfer initialized" });
  },
});

export const startWeights = route({
  ...acts,
  path: "/start_weight_update",
  limits: quick,
  body: StartWeightsBody,
  doc: "Begin an update; one that had begun is dropped.",
  handler: ({ caller, body, services }) => {
    checkStart(body);
    services.operations.weights.start(caller);
    return json({ message: "Weight update started" });
  },
});

export const updateWeights = route({
  ...acts,
  path: "/update_weights",
  limits: { bodyBytes: 64 * KIB, timeoutMs: long },
  body: UpdateWeightsBody,
  doc: "Check a file and its digest; within an update it is used at its finish, else at once.",
  handler: async ({ caller, body, services, signal }) => {
    const used = await services.operations.weights.update(caller, decodeUpdate(body), signal);
    return json({ message: used ? "Weights updated" : "Weights verified" });
  },
});

export const finishWeights = route({
  ...acts,
  path: "/finish_weight_update",
  limits: { timeoutMs: long },
  doc: "Put the checked weights in the place of the present ones, between two steps.",
  handler: async ({ caller, services }) => {
    await services.operations.weights.finish(caller);
    return json({ message: "Weights updated" });
  },
});

export const worldSize = route({
  ...common,
  method: "GET",
  path: "/get_world_size",
  limits: { timeoutMs: 30 * SECOND },
  query: WorldSizeQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: WorldSizeReply, doc: "Engines; without them 1." },
    ...failures,
  ],
  doc: "How many engines there are.",
  handler: ({ caller, query, services }) =>
    json({ world_size: services.operations.weights.worldSize(caller, query.include_dp) }),
});
