/**
 * How the routes under Cohere's paths print a failure: vLLM's error object, and beside it the `message` and `id` that
 * Cohere's clients look for.
 */
import type { Dialect, FaultReply } from "#core/dialect.ts";
import type { Fault } from "#core/fault.ts";
import { openai } from "#wire/openai/dialect.ts";

export const cohere: Dialect = { name: "cohere", fault, streamFault: openai.streamFault };

function fault(failure: Fault, requestId: string): FaultReply {
  const { status, body } = openai.fault(failure, requestId);
  const { error } = body as { readonly error: string | { readonly message: string } };
  // Strangers get the same bytes each time.
  if (typeof error === "string") return { status, body: { message: error, error } };
  return { status, body: { id: requestId, message: error.message, error } };
}
