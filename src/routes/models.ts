/**
 * GET /v1/models and /v1/models/{model_id}, in OpenAI's words or, for Anthropic's clients, in theirs
 */
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { anthropic, byVersion } from "#wire/anthropic/dialect.ts";
import {
  AnthropicModel,
  AnthropicModelList,
  encodeModel,
  encodeModelPage,
  ModelPageQuery,
} from "#wire/anthropic/models.ts";
import { MessageErrorReply } from "#wire/anthropic/replies.ts";
import { openai } from "#wire/openai/dialect.ts";
import { encodeCard, encodeModels, Model, type ModelCard, ModelList } from "#wire/openai/models.ts";
import { ErrorReply, UnauthenticatedReply } from "#wire/openai/replies.ts";
import { route, SECOND, type Services } from "./_services.ts";

const spoken = { dialect: openai, orBy: byVersion };

const failure = (status: number, doc: string) => ({
  status,
  contentType: "application/json" as const,
  schema: (status === 401 ? UnauthenticatedReply : ErrorReply).or(MessageErrorReply),
  doc,
});

export const models = route({
  method: "GET",
  path: "/v1/models",
  ...spoken,
  access: key("models:read"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  query: ModelPageQuery,
  reply: [
    {
      status: 200,
      contentType: "application/json",
      schema: ModelList.or(AnthropicModelList),
      doc: "One card a served name; with `anthropic-version` a page of them.",
    },
    failure(400, "With `anthropic-version`: the page is not one."),
    failure(401, "No key, or one that is not known."),
  ],
  audit: "none",
  doc: "List the models that are served.",
  handler: ({ caller, query, dialect, services }) => {
    const cards = cardsOf(services, caller.principal);
    return json(dialect === anthropic ? encodeModelPage(cards, query) : encodeModels(cards));
  },
});

export const model = route({
  method: "GET",
  path: "/v1/models/{model_id}",
  ...spoken,
  access: key("models:read"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  reply: [
    { status: 200, contentType: "application/json", schema: Model.or(AnthropicModel), doc: "The card." },
    failure(401, "No key, or one that is not known."),
    failure(404, "No such model."),
  ],
  audit: "none",
  doc: "One of the models that are served, by a name of letters, digits, `_` and `-`.",
  handler: ({ caller, params, dialect, services }) => {
    const card = cardsOf(services, caller.principal).find(({ name }) => name === params.model_id);
    if (card === undefined)
      throw new Fault("model_not_found", `The model '${params.model_id}' not found.`, { param: "model" });
    return json(dialect === anthropic ? encodeModel(card) : encodeCard(card));
  },
});

function cardsOf({ serving }: Services, principal: Principal): readonly ModelCard[] {
  return serving.models.visibleTo(principal).flatMap(({ model, names, parent }) => {
    const { createdAt, contextLength } = model.backend.model;
    const more = {
      ...(parent === undefined ? {} : { parent }),
      ...(model.lora?.sha256 === undefined ? {} : { sha256: model.lora.sha256 }),
    };
    return names.map((name) => ({ name, createdAt, contextLength, ...more }));
  });
}
