/**
 * A body of /v1/chat/completions/derender or /v1/completions/derender that is passed on: read whole, held to the bounds of
 * the same route where this server answers it, and written anew of what was judged.
 *
 * Invariant: of the request within it only known fields go on, none that decides for others or that is fetched; parts of
 * messages that are no text are left out, as nothing is computed from them. Callers: forwarding.
 */
import { JsonError, type JsonValue, parseJson, stringifyJson } from "#base/json.ts";
import { conform } from "#core/conform.ts";
import { Fault } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject } from "#wire/openai/_compound.ts";
import { decodeChat } from "#wire/openai/chat-decode.ts";
import { ChatBody } from "#wire/openai/chat-schema.ts";
import { decodeCompletion } from "#wire/openai/completion-decode.ts";
import { CompletionBody } from "#wire/openai/completion-schema.ts";
import { ChatDerenderBody, CompletionDerenderBody, decodeDerender } from "#wire/vllm/derender.ts";
import { decodePart } from "#wire/vllm/derender-stream.ts";
import { IGNORED, REFUSED } from "./rules.ts";

export const DERENDER_ROUTES = {
  "/v1/chat/completions/derender": "chat_request",
  "/v1/completions/derender": "completion_request",
} as const;
export type DerenderField = (typeof DERENDER_ROUTES)[keyof typeof DERENDER_ROUTES];

export interface DerenderVerdict {
  /** As the client calls it. */
  readonly model: string | undefined;
  readonly field: DerenderField;
  /** Token ids that are read. */
  readonly tokens: number;
  readonly body: JsonObject;
  readonly request: JsonObject;
}

const PASSED = [
  "generate_response",
  "generate_responses",
  "prompt_tokens",
  "prompt_token_ids",
  "stream",
  "generate_chunk",
  "stream_state",
];
/** Of the request within: the server's to say, or another's. */
const LEFT_OUT = new Set([...REFUSED, ...IGNORED, "model", "cache_salt", "priority", "request_id"]);

/** @throws Fault invalid_json | invalid_request | not_implemented */
export function judgeDerender(bytes: Buffer, field: DerenderField, caps: RequestCaps): DerenderVerdict {
  const body = withoutMedia(parsed(bytes), field);
  const model = field === "chat_request" ? judgeChat(body, caps) : judgeCompletion(body, caps);
  const tokens = body["stream"] === true ? partTokens(body, caps) : drawnTokens(body, caps);
  return { model, field, tokens, body, request: isObject(body[field]) ? body[field] : {} };
}

/** @param model as the upstream calls it */
export function derenderBody({ field, body, request, model: asked }: DerenderVerdict, model = asked): Buffer {
  const schema = field === "chat_request" ? ChatBody : CompletionBody;
  const known = Object.entries(request).filter(([name]) => Object.hasOwn(schema.shape, name) && !LEFT_OUT.has(name));
  const inner = Object.fromEntries(known);
  const outer = Object.fromEntries(
    PASSED.filter((name) => Object.hasOwn(body, name)).map((name) => [name, body[name]]),
  );
  const named = model === undefined ? {} : { model };
  return Buffer.from(stringifyJson({ ...named, ...outer, [field]: { ...named, ...inner } } as JsonValue));
}

function judgeChat(body: JsonObject, caps: RequestCaps): string | undefined {
  const { model, chat_request: request } = conform(ChatDerenderBody, body);
  return decodeChat({ ...request, model: model ?? request.model }, caps).call.model;
}

function judgeCompletion(body: JsonObject, caps: RequestCaps): string | undefined {
  const { model, completion_request: request } = conform(CompletionDerenderBody, body);
  const { call } = decodeCompletion({ ...request, model: model ?? request.model }, caps);
  if (body["stream"] === true && call.echo)
    throw new Fault("not_implemented", "echo is not supported in pieces.", { param: "completion_request.echo" });
  return call.model;
}

function drawnTokens(body: JsonObject, caps: RequestCaps): number {
  return decodeDerender(body, caps).choices.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

function partTokens(body: JsonObject, caps: RequestCaps): number {
  return decodePart(body, caps).part?.tokens.length ?? 0;
}

function withoutMedia(body: JsonObject, field: DerenderField): JsonObject {
  const request = body[field];
  return isObject(request) && field === "chat_request"
    ? { ...body, [field]: { ...request, messages: texts(request["messages"]) } }
    : body;
}

function texts(messages: unknown): unknown {
  if (!Array.isArray(messages)) return messages;
  return messages.map((message: unknown) => {
    if (!isObject(message) || !Array.isArray(message["content"])) return message;
    const content = message["content"].filter((part: unknown) => isObject(part) && part["type"] === "text");
    return { ...message, content };
  });
}

function parsed(bytes: Buffer): JsonObject {
  try {
    const value = parseJson(bytes);
    return isObject(value) ? value : conform(ChatDerenderBody, value);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new Fault("invalid_json", `The body is not JSON that is taken: ${error.message}.`);
  }
}
