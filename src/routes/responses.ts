/**
 * POST /v1/responses, and what is done with a stored response: read, its input too, stream again, cancel, delete.
 */
import { invalid } from "#core/fault.ts";
import { capsFor } from "#core/request-caps.ts";
import { key } from "#http/access.ts";
import { events, json } from "#http/reply.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import type { Begun } from "#serving/responses.ts";
import { beginBody } from "#wire/responses/body.ts";
import { decodeResponse, type Echo } from "#wire/responses/decode.ts";
import { responses } from "#wire/responses/dialect.ts";
import { responseFrames } from "#wire/responses/frames.ts";
import { InputItemList, InputItemsQuery, inputItemsPage } from "#wire/responses/input-items.ts";
import { DeletedReply, ResponseReply, ResponseStreamEvent } from "#wire/responses/replies.ts";
import { ResponsesBody, RetrieveQuery } from "#wire/responses/schema.ts";
import { Writer } from "#wire/responses/writer.ts";
import { failures } from "./_answers.ts";
import { MIB, MINUTE, route, SECOND, type Services } from "./_services.ts";

const whole: ReplyDeclaration = {
  status: 200,
  contentType: "application/json",
  schema: ResponseReply,
  doc: "The response.",
};
const streamed: ReplyDeclaration = {
  status: 200,
  contentType: "text/event-stream",
  schema: ResponseStreamEvent,
  doc: "With `stream`: one event of the response an event, the last of which has it whole.",
};

export const createResponse = route({
  method: "POST",
  path: "/v1/responses",
  dialect: responses,
  access: key("inference"),
  plane: "public",
  limits: { bodyBytes: 8 * MIB, timeoutMs: 10 * MINUTE },
  body: ResponsesBody,
  reply: [whole, streamed, ...failures],
  audit: "metadata",
  doc: "Create a response. Storing, continuing and background need the scope `responses` too.",
  handler: async ({ caller, body, signal, services }) => {
    const { call, echo } = decodeResponse(body, capsFor(services.caps, caller.principal.caps));
    const writer = (begun: Begun): Writer => makeWriter(begun, echo, services);
    const answered = await services.responses.create(caller, { call, writer }, signal);
    return answered.kind === "events" ? events(responseFrames(answered.events)) : json(answered.body);
  },
});

function makeWriter({ defaults, ...begun }: Begun, echo: Echo, services: Services): Writer {
  const { temperature = 1, topP = 1 } = defaults;
  const head = beginBody({ ...begun, temperature, topP }, echo);
  return new Writer(head, {
    cachedTokens: services.usage.cachedTokens,
    tokensAsIds: services.tokensAsIds,
    reasoningEvents: services.responses.stored.reasoningEvents,
    logs: echo.background,
  });
}

export const retrieveResponse = route({
  method: "GET",
  path: "/v1/responses/{response_id}",
  dialect: responses,
  access: key("responses"),
  plane: "public",
  limits: { timeoutMs: 10 * MINUTE },
  query: RetrieveQuery,
  reply: [whole, streamed, ...failures],
  audit: "metadata",
  doc: "A stored response; with `stream=true` the events of a background one, those to come too.",
  handler: async ({ caller, params, query, signal, services }) => {
    const id = params.response_id;
    if (query.stream !== "true") {
      if (query.starting_after !== undefined) throw invalid("starting_after", "starting_after needs stream=true.");
      return json(await services.responses.stored.retrieve(caller, id));
    }
    const after = query.starting_after === undefined ? -1 : Number(query.starting_after);
    return events(responseFrames(await services.responses.stored.follow(caller, id, after, signal)));
  },
});

export const responseInput = route({
  method: "GET",
  path: "/v1/responses/{response_id}/input_items",
  dialect: responses,
  access: key("responses"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  query: InputItemsQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: InputItemList, doc: "Items, as a page." },
    ...failures,
  ],
  audit: "metadata",
  doc: "The conversation that a stored response answers, as items.",
  handler: async ({ caller, params, query, services }) =>
    json(inputItemsPage(await services.responses.stored.kept(caller, params.response_id), query)),
});

export const cancelResponse = route({
  method: "POST",
  path: "/v1/responses/{response_id}/cancel",
  dialect: responses,
  access: key("responses"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  reply: [whole, ...failures],
  audit: "metadata",
  doc: "End a background response that is on its way.",
  handler: async ({ caller, params, services }) =>
    json(await services.responses.stored.cancel(caller, params.response_id)),
});

export const deleteResponse = route({
  method: "DELETE",
  path: "/v1/responses/{response_id}",
  dialect: responses,
  access: key("responses"),
  plane: "public",
  limits: { timeoutMs: 30 * SECOND },
  reply: [{ status: 200, contentType: "application/json", schema: DeletedReply, doc: "It is gone." }, ...failures],
  audit: "metadata",
  doc: "Delete a stored response.",
  handler: async ({ caller, params, services }) => {
    await services.responses.stored.remove(caller, params.response_id);
    return json({ id: params.response_id, object: "response", deleted: true });
  },
});
