/**
 * How the OpenAI routes print a failure: vLLM's error object (serve/utils/error_response.py).
 *
 * Invariant: a message that leaves here is well-formed and bounded; it never holds a fault's `detail`.
 */
import { stringifyJson } from "#base/json.ts";
import { sseData } from "#base/sse.ts";
import type { Dialect, FaultReply } from "#core/dialect.ts";
import type { Fault, FaultKind } from "#core/fault.ts";
import { bound, faultMessage } from "#wire/_fault-text.ts";
import { DONE } from "./frames.ts";

/** kind → status and vLLM's `type`: its own class names, or the status' phrase where vLLM has no class. */
const REPLIES: Readonly<Record<FaultKind, { readonly status: number; readonly type: string }>> = {
  invalid_json: { status: 400, type: "Bad Request" },
  invalid_request: { status: 400, type: "BadRequestError" },
  unsupported_media_type: { status: 400, type: "Bad Request" },
  payload_too_large: { status: 413, type: "Request Entity Too Large" },
  unauthenticated: { status: 401, type: "Unauthorized" },
  forbidden: { status: 403, type: "Forbidden" },
  route_not_found: { status: 404, type: "Not Found" },
  method_not_allowed: { status: 405, type: "Method Not Allowed" },
  model_not_found: { status: 404, type: "NotFoundError" },
  response_not_found: { status: 404, type: "invalid_request_error" },
  file_not_found: { status: 404, type: "invalid_request_error" },
  file_elsewhere: { status: 409, type: "Conflict" },
  batch_not_found: { status: 404, type: "invalid_request_error" },
  key_not_found: { status: 404, type: "NotFoundError" },
  request_timeout: { status: 408, type: "Request Timeout" },
  rate_limited: { status: 429, type: "Too Many Requests" },
  overloaded: { status: 503, type: "Service Unavailable" },
  draining: { status: 503, type: "Service Unavailable" },
  engine_unavailable: { status: 503, type: "Service Unavailable" },
  engine_failed: { status: 503, type: "Service Unavailable" },
  policy_unavailable: { status: 503, type: "Service Unavailable" },
  not_implemented: { status: 501, type: "NotImplementedError" },
  upstream_unavailable: { status: 503, type: "Service Unavailable" },
  upstream_failed: { status: 502, type: "Bad Gateway" },
  upstream_timeout: { status: 504, type: "Gateway Timeout" },
  cancelled: { status: 499, type: "Client Closed Request" },
  internal: { status: 500, type: "InternalServerError" },
};

const PARAM_LENGTH = 200;

export const openai: Dialect = {
  name: "openai",
  fault,
  streamFault: (failure, requestId) => sseData(stringifyJson(errorBody(failure, requestId))) + DONE,
};

function fault(failure: Fault, requestId: string): FaultReply {
  // vLLM's authentication middleware answers in a shape of its own.
  if (failure.kind === "unauthenticated") return { status: 401, body: { error: "Unauthorized" } };
  return { status: REPLIES[failure.kind].status, body: errorBody(failure, requestId) };
}

function errorBody(failure: Fault, requestId: string): unknown {
  const { status, type } = REPLIES[failure.kind];
  return {
    error: {
      message: faultMessage(failure, requestId),
      type,
      param: failure.param === undefined ? null : bound(failure.param, PARAM_LENGTH),
      code: status,
    },
  };
}
