/**
 * How the responses routes print a failure: as the OpenAI routes do, but for a stream, which has an event for it.
 *
 * The stream of a response that failed has said so in its last event (`response.failed`); then nothing more is printed.
 */
import { stringifyJson } from "#base/json.ts";
import { sseEvent } from "#base/sse.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault } from "#core/fault.ts";
import type { ResponseError } from "#core/responses.ts";
import { openai } from "#wire/openai/dialect.ts";

/** Faults that a stream's last event has told. */
const told = new WeakSet<object>();

export const responses: Dialect = {
  name: "openai",
  fault: openai.fault,
  streamFault: (failure, requestId) => {
    if (told.has(failure)) return "";
    const { body } = openai.fault(failure, requestId);
    const { message, param, code } = (body as { error: { message: string; param: string | null; code: number } }).error;
    return sseEvent("error", stringifyJson({ type: "error", code: String(code), message, param }));
  },
};

const CODES: Readonly<Partial<Record<Fault["kind"], string>>> = {
  rate_limited: "rate_limit_exceeded",
  invalid_request: "invalid_prompt",
};

/** Why a response failed, for its object. What is not a fault is a bug, and says nothing of itself. */
export function errorOf(failure: unknown): ResponseError {
  if (!(failure instanceof Fault)) return { code: "server_error", message: "Internal server error." };
  return { code: CODES[failure.kind] ?? "server_error", message: failure.message.slice(0, 1000).toWellFormed() };
}

/** The stream's last event says this failure. */
export function tell(failure: unknown): void {
  if (typeof failure === "object" && failure !== null) told.add(failure);
}
