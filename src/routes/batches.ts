/**
 * /v1/batches
 */
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { BatchBody, BatchList, BatchListQuery, BatchReply, decodeBatch, encodeBatch } from "#wire/openai/batches.ts";
import { openai } from "#wire/openai/dialect.ts";
import { decodePage, encodePage } from "#wire/openai/list.ts";
import { failures } from "./_answers.ts";
import { KIB, route, SECOND } from "./_services.ts";

const limits = { timeoutMs: 30 * SECOND };
const one = { status: 200, contentType: "application/json", schema: BatchReply, doc: "The batch." } as const;

export const createBatch = route({
  method: "POST",
  path: "/v1/batches",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits: { ...limits, bodyBytes: 64 * KIB },
  body: BatchBody,
  reply: [one, ...failures],
  audit: "metadata",
  doc: "Have the requests of an uploaded file answered in the background.",
  handler: async ({ caller, body, services }) =>
    json(encodeBatch(await services.batches.create(caller, decodeBatch(body)))),
});

export const listBatches = route({
  method: "GET",
  path: "/v1/batches",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  query: BatchListQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: BatchList, doc: "The tenant's batches, newest first." },
    ...failures,
  ],
  audit: "metadata",
  doc: "The batches of the caller's tenant.",
  handler: async ({ caller, query, services }) => {
    const { limit, ...from } = decodePage(query);
    const found = await services.batches.list(caller, { ...from, limit: limit + 1 });
    return json(encodePage(found.map(encodeBatch), limit));
  },
});

export const showBatch = route({
  method: "GET",
  path: "/v1/batches/{batch_id}",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  reply: [one, ...failures],
  audit: "metadata",
  doc: "How far a batch is.",
  handler: async ({ caller, params, services }) =>
    json(encodeBatch(await services.batches.get(caller, params.batch_id))),
});

export const cancelBatch = route({
  method: "POST",
  path: "/v1/batches/{batch_id}/cancel",
  dialect: openai,
  access: key("batch"),
  plane: "public",
  limits,
  reply: [one, ...failures],
  audit: "metadata",
  doc: "End a batch; what is answered can be had.",
  handler: async ({ caller, params, services }) =>
    json(encodeBatch(await services.batches.cancel(caller, params.batch_id))),
});
