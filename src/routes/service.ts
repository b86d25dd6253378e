/**
 * GET /version, /openapi.json, /load, /metrics and /metrics/upstreams
 */
import { Fault } from "#core/fault.ts";
import { key, operatorKey } from "#http/access.ts";
import { json, jsonText, text } from "#http/reply.ts";
import { openai } from "#wire/openai/dialect.ts";
import { LoadReply, VersionReply } from "#wire/vllm/service.ts";
import { failures, unauthenticated } from "./_answers.ts";
import { route, SECOND } from "./_services.ts";

const limits = { timeoutMs: 30 * SECOND };

export const version = route({
  method: "GET",
  path: "/version",
  dialect: openai,
  access: key("models:read"),
  plane: "both",
  limits,
  reply: [
    { status: 200, contentType: "application/json", schema: VersionReply, doc: "This server's version." },
    unauthenticated,
  ],
  audit: "none",
  doc: "The server's version.",
  handler: ({ services }) => json({ version: services.version }),
});

export const openapi = route({
  method: "GET",
  path: "/openapi.json",
  dialect: openai,
  access: key("models:read"),
  plane: "both",
  limits,
  reply: [
    { status: 200, contentType: "application/json", doc: "The routes of the listener that was asked." },
    unauthenticated,
  ],
  audit: "none",
  doc: "The server's routes, as an OpenAPI document.",
  handler: ({ plane, services }) => jsonText(services.openapi(plane)),
});

export const load = route({
  method: "GET",
  path: "/load",
  dialect: openai,
  access: key("metrics:read"),
  plane: "public",
  limits,
  reply: [
    { status: 200, contentType: "application/json", schema: LoadReply, doc: "Requests in flight." },
    unauthenticated,
  ],
  audit: "none",
  doc: "How many requests are being worked on.",
  handler: ({ services }) => json({ server_load: services.load() }),
});

export const metrics = route({
  method: "GET",
  path: "/metrics",
  dialect: openai,
  access: key("metrics:read"),
  plane: "both",
  limits,
  reply: [{ status: 200, contentType: "text/plain", doc: "Prometheus text format 0.0.4." }, unauthenticated],
  audit: "none",
  doc: "Metrics under vLLM's names.",
  handler: async ({ services }) => text(await services.metrics(), "text/plain; version=0.0.4; charset=utf-8"),
});

/** Answered by the relay, where there are upstreams. */
export const upstreamMetrics = route({
  method: "GET",
  path: "/metrics/upstreams",
  dialect: openai,
  access: operatorKey("metrics:read"),
  plane: "ops",
  limits,
  reply: [{ status: 200, contentType: "text/plain", doc: "Prometheus text format 0.0.4." }, ...failures],
  audit: "none",
  doc: "Metrics of the servers behind this one, with labels of whose they are.",
  handler: () => {
    throw new Fault("not_implemented", "There is no server behind this one.");
  },
});
