/**
 * POST /invocations: SageMaker's one path for what the routes of inference do
 */
import { tasksOf } from "#core/model.ts";
import { key } from "#http/access.ts";
import type { AnyRoute } from "#http/route.ts";
import { openai } from "#wire/openai/dialect.ts";
import { InvocationBody, type Invoked, invokedBy } from "#wire/vllm/invocations.ts";
import { failures } from "./_answers.ts";
import { MIB, MINUTE, route, type Services } from "./_services.ts";
import { chatCompletions } from "./chat-completions.ts";
import { completions } from "./completions.ts";
import { embeddings, pooling } from "./embeddings.ts";
import { classify, rerank, score } from "./scores.ts";

const TARGETS: Readonly<Record<Invoked, AnyRoute<Services>>> = {
  chat: chatCompletions,
  completion: completions,
  embedding: embeddings,
  classification: classify,
  rerank,
  score,
  pooling,
};

/** What answers a body of this shape, under its own declaration. */
export function invocationRoute(invoked: Invoked): AnyRoute<Services> {
  return TARGETS[invoked];
}

export const invocations = route({
  method: "POST",
  path: "/invocations",
  dialect: openai,
  // To be read at all; the scope of the route that answers is asked for besides (docs/decisions/0020).
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: InvocationBody,
  reply: [
    { status: 200, contentType: "application/json", doc: "What the route that the body is for answers." },
    { status: 200, contentType: "text/event-stream", doc: "Its stream." },
    { status: 200, contentType: "application/octet-stream", doc: "Its bytes." },
    ...failures,
  ],
  audit: "metadata",
  doc: "Chat, completion, embedding, classification, reranking, scoring or pooling, by the body's fields.",
  forwardsTo: Object.values(TARGETS),
  handler: ({ caller, body, services }) => {
    const { backend } = services.serving.models.resolve(body.model ?? undefined, caller.principal);
    return { kind: "forward", to: TARGETS[invokedBy(body, tasksOf(backend.model))], body };
  },
});
