/**
 * A failure that ends a call, in a closed vocabulary.
 *
 * `message` may reach the client and names no address, path, key or tenant; `detail` goes to the log only.
 * Every dialect maps every kind in one exhaustive table (wire/<protocol>/dialect.ts), so adding a kind does
 * not compile until each protocol has decided how to print it.
 */

/** kind → one line for docs/reference/faults.md. The keys are the closed vocabulary. */
export const FAULT_KINDS = {
  invalid_json: "the body is not the JSON it says it is",
  invalid_request: "a field has a value that this server does not take",
  unsupported_media_type: "the content type is not one that this route reads",
  payload_too_large: "the body is larger than the route's limit",
  unauthenticated: "no key, or one that is not known",
  forbidden: "the key is known and may not do this",
  route_not_found: "no route has this path on this listener",
  method_not_allowed: "the path exists, the method does not",
  model_not_found: "no model of this name is served here",
  response_not_found: "the caller's tenant has no response of this id",
  file_not_found: "the caller's tenant has no file of this id",
  file_elsewhere: "the content is on the disk of another server of this service",
  batch_not_found: "the caller's tenant has no batch of this id",
  key_not_found: "the caller has no key of this id to look after",
  request_timeout: "the client or the work took longer than the route's limit",
  rate_limited: "the key has used what it may use for now",
  overloaded: "the waiting queue is full",
  draining: "the server is shutting down and takes no new work",
  engine_unavailable: "the engine is starting or restarting",
  engine_failed: "the engine died while it worked on this call",
  not_implemented: "the field or route is known and this server does not do it",
  upstream_unavailable: "no server behind this one takes the call now",
  upstream_failed: "the server behind this one broke off, or answered with what is no answer",
  upstream_timeout: "the server behind this one took too long",
  cancelled: "the client went away, or the call was aborted",
  policy_unavailable: "keys, limits or records cannot be checked or kept at the moment",
  internal: "a fault of this server",
} as const;

export type FaultKind = keyof typeof FAULT_KINDS;

export interface FaultOptions {
  /** For the log only; never sent. */
  readonly detail?: string;
  /** The field at fault, as a dotted path (`messages.0.content`). */
  readonly param?: string;
  /** When trying again may help, in milliseconds. */
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

export class Fault extends Error {
  readonly kind: FaultKind;
  readonly detail: string | undefined;
  readonly param: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(kind: FaultKind, message: string, options: FaultOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "Fault";
    this.kind = kind;
    this.detail = options.detail;
    this.param = options.param;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** The 400 that names a field. */
export function invalid(param: string, message: string): Fault {
  return new Fault("invalid_request", message, { param });
}
