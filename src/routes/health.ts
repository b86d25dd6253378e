/**
 * GET /health, GET and POST /ping: liveness for load balancers, which hold no key.
 */
import { type OpenAccess, open } from "#http/access.ts";
import { empty } from "#http/reply.ts";
import type { Method, Plane, ReplyDeclaration } from "#http/route.ts";
import { openai } from "#wire/openai/dialect.ts";
import { route, SECOND, type Services } from "./_services.ts";

const reply: readonly ReplyDeclaration[] = [
  { status: 200, contentType: null, doc: "Ready to take work." },
  { status: 503, contentType: null, doc: "Starting, stalled, restarting or draining." },
];
const access: OpenAccess = open(
  "A probe of an orchestrator or load balancer has no key; the answer says nothing but up or not.",
);

function liveness(method: Method, path: `/${string}`, plane: Plane, doc: string) {
  return route({
    method,
    path,
    dialect: openai,
    access,
    plane,
    limits: { timeoutMs: 5 * SECOND },
    reply,
    audit: "none",
    doc,
    handler: ({ services }) => empty(isUp(services) ? 200 : 503),
  });
}

function isUp(services: Services): boolean {
  return services.accepting() && services.serving.models.ready;
}

export const health = liveness("GET", "/health", "both", "Whether the server can take work.");
export const ping = liveness("GET", "/ping", "public", "The same, under the name that SageMaker asks for.");
export const pingPost = liveness("POST", "/ping", "public", "The same, for probes that POST.");
