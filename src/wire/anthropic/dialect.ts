/**
 * How the Messages routes print a failure: Anthropic's error object, under the status that vLLM gives.
 *
 * Invariant: as of every dialect, a message that leaves here is well-formed and bounded and holds no `detail`. The
 * object has no place for a field's name, so the message begins with it where it does not name it itself.
 */
import { stringifyJson } from "#base/json.ts";
import { sseEvent } from "#base/sse.ts";
import type { Dialect } from "#core/dialect.ts";
import { Fault, type FaultKind } from "#core/fault.ts";
import { bound, faultMessage } from "#wire/_fault-text.ts";

/** kind → status and one of Anthropic's types. Its clients choose their class by the status. */
const REPLIES: Readonly<Record<FaultKind, { readonly status: number; readonly type: string }>> = {
  invalid_json: { status: 400, type: "invalid_request_error" },
  invalid_request: { status: 400, type: "invalid_request_error" },
  unsupported_media_type: { status: 400, type: "invalid_request_error" },
  payload_too_large: { status: 413, type: "request_too_large" },
  unauthenticated: { status: 401, type: "authentication_error" },
  forbidden: { status: 403, type: "permission_error" },
  route_not_found: { status: 404, type: "not_found_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "not_found_error" },
  response_not_found: { status: 404, type: "not_found_error" },
  file_not_found: { status: 404, type: "not_found_error" },
  file_elsewhere: { status: 409, type: "invalid_request_error" },
  batch_not_found: { status: 404, type: "not_found_error" },
  key_not_found: { status: 404, type: "not_found_error" },
  request_timeout: { status: 408, type: "timeout_error" },
  rate_limited: { status: 429, type: "rate_limit_error" },
  overloaded: { status: 503, type: "overloaded_error" },
  draining: { status: 503, type: "overloaded_error" },
  engine_unavailable: { status: 503, type: "overloaded_error" },
  engine_failed: { status: 503, type: "api_error" },
  policy_unavailable: { status: 503, type: "api_error" },
  not_implemented: { status: 501, type: "invalid_request_error" },
  upstream_unavailable: { status: 503, type: "overloaded_error" },
  upstream_failed: { status: 502, type: "api_error" },
  upstream_timeout: { status: 504, type: "timeout_error" },
  cancelled: { status: 499, type: "invalid_request_error" },
  internal: { status: 500, type: "api_error" },
};

const PARAM_LENGTH = 200;

export const anthropic: Dialect = {
  name: "anthropic",
  requestIdHeader: "request-id",
  fault: (failure, requestId) => ({ status: REPLIES[failure.kind].status, body: errorBody(failure, requestId) }),
  // Nothing follows an error event, not even message_stop.
  streamFault: (failure, requestId) => sseEvent("error", stringifyJson(errorBody(failure, requestId))),
};

/** Anthropic's clients say which version of its API they speak, and nobody else does. */
export const byVersion = { header: "anthropic-version", dialect: anthropic };

function errorBody(failure: Fault, requestId: string): unknown {
  return {
    type: "error",
    error: { type: REPLIES[failure.kind].type, message: faultMessage(named(failure), requestId) },
    // Strangers all get the same bytes.
    ...(failure.kind === "unauthenticated" ? {} : { request_id: bound(requestId, PARAM_LENGTH) }),
  };
}

function named(failure: Fault): Fault {
  const { kind, message, param } = failure;
  return param === undefined || message.includes(param)
    ? failure
    : new Fault(kind, `${bound(param, PARAM_LENGTH)}: ${message}`);
}
