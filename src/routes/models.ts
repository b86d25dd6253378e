/**
 * GET /v1/models
 */
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { openai } from "#wire/openai/dialect.ts";
import { encodeModels, ModelList } from "#wire/openai/models.ts";
import { unauthenticated } from "./_answers.ts";
import { route, SECOND } from "./_services.ts";

export const models = route({
  method: "GET",
  path: "/v1/models",
  dialect: openai,
  access: key("models:read"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  reply: [
    { status: 200, contentType: "application/json", schema: ModelList, doc: "One card a served name." },
    unauthenticated,
  ],
  audit: "none",
  doc: "List the models that are served.",
  handler: ({ caller, services }) => {
    const cards = services.serving.models.visibleTo(caller.principal).flatMap(({ model, names, parent }) => {
      const { createdAt, contextLength } = model.backend.model;
      const more = {
        ...(parent === undefined ? {} : { parent }),
        ...(model.lora === undefined ? {} : { sha256: model.lora.sha256 }),
      };
      return names.map((name) => ({ name, createdAt, contextLength, ...more }));
    });
    return json(encodeModels(cards));
  },
});
