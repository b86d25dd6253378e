/**
 * Parts that several declarations share.
 */
import type { Grant, Scope } from "#core/principal.ts";
import type { ReplyDeclaration } from "#http/route.ts";
import type { Identity } from "#wire/openai/frames.ts";
import { ErrorReply, UnauthenticatedReply } from "#wire/openai/replies.ts";
import type { Services } from "./_services.ts";

/** @param prefix `chatcmpl` or `cmpl`. @throws Fault model_not_found */
export function identify(
  prefix: string,
  base: string,
  model: string | undefined,
  { serving, usage }: Services,
  { principal }: Grant<Scope>,
): Identity {
  const served = serving.models.resolve(model, principal);
  return {
    id: `${prefix}-${base}`,
    created: Math.floor(Date.now() / 1000),
    usage: { ...usage, reasoningTokens: served.parsers.reasoning !== undefined },
  };
}

const FAILURES: readonly (readonly [status: number, doc: string])[] = [
  [400, "The body or a field is not one that this server takes; `param` names it."],
  [401, "No key, or one that is not known."],
  [403, "The key may not do this."],
  [404, "No such model, or no such key."],
  [413, "The body is larger than the limit."],
  [429, "The key has used what it may use for now."],
  [500, "A fault of this server."],
  [501, "The field is known and not supported yet."],
  [503, "The queue is full, or the engine cannot take work."],
];

/** The failures that a route with a body may answer. */
export const failures: readonly ReplyDeclaration[] = FAILURES.map(([status, doc]) => ({
  status,
  contentType: "application/json",
  schema: status === 401 ? UnauthenticatedReply : ErrorReply,
  doc,
}));

/** Of what an operator asks of the engines. */
export const late: ReplyDeclaration = {
  status: 408,
  contentType: "application/json",
  schema: ErrorReply,
  doc: "Not over in time; the message says what holds meanwhile.",
};

export const unauthenticated: ReplyDeclaration = {
  status: 401,
  contentType: "application/json",
  schema: UnauthenticatedReply,
  doc: "No key, or one that is not known.",
};
