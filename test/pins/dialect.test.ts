/**
 * Pins: what a client sees of each kind of failure.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { FAULT_KINDS, Fault, type FaultKind } from "#core/fault.ts";
import { anthropic } from "#wire/anthropic/dialect.ts";
import { openai } from "#wire/openai/dialect.ts";

const TABLE: readonly (readonly [FaultKind, number, string])[] = [
  ["invalid_json", 400, "Bad Request"],
  ["invalid_request", 400, "BadRequestError"],
  ["unsupported_media_type", 400, "Bad Request"],
  ["payload_too_large", 413, "Request Entity Too Large"],
  ["forbidden", 403, "Forbidden"],
  ["route_not_found", 404, "Not Found"],
  ["method_not_allowed", 405, "Method Not Allowed"],
  ["model_not_found", 404, "NotFoundError"],
  ["key_not_found", 404, "NotFoundError"],
  ["response_not_found", 404, "invalid_request_error"],
  ["file_not_found", 404, "invalid_request_error"],
  ["file_elsewhere", 409, "Conflict"],
  ["batch_not_found", 404, "invalid_request_error"],
  ["request_timeout", 408, "Request Timeout"],
  ["rate_limited", 429, "Too Many Requests"],
  ["overloaded", 503, "Service Unavailable"],
  ["draining", 503, "Service Unavailable"],
  ["engine_unavailable", 503, "Service Unavailable"],
  ["engine_failed", 503, "Service Unavailable"],
  ["policy_unavailable", 503, "Service Unavailable"],
  ["not_implemented", 501, "NotImplementedError"],
  ["upstream_unavailable", 503, "Service Unavailable"],
  ["upstream_failed", 502, "Bad Gateway"],
  ["upstream_timeout", 504, "Gateway Timeout"],
  ["cancelled", 499, "Client Closed Request"],
];

test("status and type of every kind", () => {
  for (const [kind, status, type] of TABLE) {
    const reply = openai.fault(new Fault(kind, "why", { param: "field", detail: "secret" }), "r1");
    assert.deepEqual(reply, { status, body: { error: { message: "why", type, param: "field", code: status } } });
  }
  assert.deepEqual(
    new Set([...TABLE.map(([kind]) => kind), "unauthenticated", "internal"]),
    new Set(Object.keys(FAULT_KINDS)),
  );
});

test("401 has vLLM's own shape", () => {
  assert.deepEqual(openai.fault(new Fault("unauthenticated", "no key"), "r1"), {
    status: 401,
    body: { error: "Unauthorized" },
  });
});

test("500 carries the request id and nothing of the cause", () => {
  const reply = openai.fault(new Fault("internal", "Something went wrong here.", { detail: "/etc/passwd" }), "r1");
  assert.deepEqual(reply.body, {
    error: {
      message: "Something went wrong here. Request id: r1",
      type: "InternalServerError",
      param: null,
      code: 500,
    },
  });
});

test("in a stream: an error event, then the end", () => {
  assert.equal(
    openai.streamFault(new Fault("engine_failed", "The engine died."), "r1"),
    'data: {"error":{"message":"The engine died.","type":"Service Unavailable","param":null,"code":503}}\n\ndata: [DONE]\n\n',
  );
});

test("messages are bounded and well-formed", () => {
  const { body } = openai.fault(new Fault("invalid_request", `${"x".repeat(998)}😀${"y".repeat(5000)}`), "r1");
  const { message } = (body as { error: { message: string } }).error;
  assert.equal(message.length, 1000);
  assert.ok(message.isWellFormed());
});

const ANTHROPIC: Readonly<Record<FaultKind, readonly [status: number, type: string]>> = {
  invalid_json: [400, "invalid_request_error"],
  invalid_request: [400, "invalid_request_error"],
  unsupported_media_type: [400, "invalid_request_error"],
  payload_too_large: [413, "request_too_large"],
  unauthenticated: [401, "authentication_error"],
  forbidden: [403, "permission_error"],
  route_not_found: [404, "not_found_error"],
  method_not_allowed: [405, "invalid_request_error"],
  model_not_found: [404, "not_found_error"],
  key_not_found: [404, "not_found_error"],
  response_not_found: [404, "not_found_error"],
  file_not_found: [404, "not_found_error"],
  file_elsewhere: [409, "invalid_request_error"],
  batch_not_found: [404, "not_found_error"],
  request_timeout: [408, "timeout_error"],
  rate_limited: [429, "rate_limit_error"],
  overloaded: [503, "overloaded_error"],
  draining: [503, "overloaded_error"],
  engine_unavailable: [503, "overloaded_error"],
  engine_failed: [503, "api_error"],
  policy_unavailable: [503, "api_error"],
  not_implemented: [501, "invalid_request_error"],
  upstream_unavailable: [503, "overloaded_error"],
  upstream_failed: [502, "api_error"],
  upstream_timeout: [504, "timeout_error"],
  cancelled: [499, "invalid_request_error"],
  internal: [500, "api_error"],
};

test("Anthropic: status and type of every kind", () => {
  for (const kind of Object.keys(FAULT_KINDS) as FaultKind[]) {
    const [status, type] = ANTHROPIC[kind];
    const message = kind === "internal" ? "why Request id: r1" : "why";
    assert.deepEqual(anthropic.fault(new Fault(kind, "why", { detail: "/etc/passwd" }), "r1"), {
      status,
      body: {
        type: "error",
        error: { type, message },
        ...(kind === "unauthenticated" ? {} : { request_id: "r1" }),
      },
    });
  }
});

test("Anthropic: the message names the field, once", () => {
  const message = (text: string, param: string): unknown =>
    (anthropic.fault(new Fault("invalid_request", text, { param }), "r1").body as { error: { message: string } }).error
      .message;
  assert.equal(message("is wrong.", "tools.0"), "tools.0: is wrong.");
  assert.equal(message("tools.0 is wrong.", "tools.0"), "tools.0 is wrong.");
  assert.equal(message("x".repeat(2000), "y".repeat(2000)), `${"y".repeat(199)}…: ${"x".repeat(797)}…`);
});

test("Anthropic: in a stream an error event ends it", () => {
  assert.equal(
    anthropic.streamFault(new Fault("engine_failed", "The engine died.", { detail: "at 0x7f" }), "r1"),
    'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"The engine died."},"request_id":"r1"}\n\n',
  );
});
