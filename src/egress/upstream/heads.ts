/**
 * What may stand in a request to an upstream, and what of its answer's head may go on to a client. Pure.
 *
 * Invariants (Wall: T120): both heads are rebuilt from closed lists of names, every value is printable ASCII, and nothing
 * that frames a message (Host, Content-Length, Transfer-Encoding, Connection …) comes from outside; an answer whose end
 * cannot be told from a broken connection, or that is encoded in a way that was not asked for, is no answer.
 * Callers: client.ts, exchange.ts.
 */
import type { RelayHead, UpstreamRequest } from "#core/relay.ts";
import type { AnswerHeaders, HeaderValue } from "./_head.ts";

const UPSTREAM_METHODS = ["GET", "POST", "DELETE"] as const;
/** The names that an UpstreamRequest may have. */
const UPSTREAM_HEADERS: ReadonlySet<string> = new Set([
  "accept",
  "content-type",
  "traceparent",
  "tracestate",
  "user-agent",
  "x-request-id",
]);

const TARGET = /^\/(?!\/)[\x21\x22\x24-\x5b\x5d-\x7e]*$/;
const VALUE = /^[\x20-\x7e]*$/;
const MAX_TARGET = 8192;
const MAX_VALUE = 4096;

/** @throws Error: whoever made the request is wrong, not who asked for it */
export function checkedTarget(method: string, target: string): void {
  if (!UPSTREAM_METHODS.some((known) => known === method)) throw new Error("no method for an upstream");
  if (target.length > MAX_TARGET || !TARGET.test(target)) throw new Error("no target for an upstream");
}

/** @throws Error */
export function checkedHeaders(headers: UpstreamRequest["headers"]): void {
  for (let at = 0; at < headers.length; at += 2) {
    const [name = "", value] = [headers[at], headers[at + 1]];
    if (!UPSTREAM_HEADERS.has(name) || stands(headers, name, at)) throw new Error("no header for an upstream");
    if (value === undefined || value.length > MAX_VALUE || !VALUE.test(value))
      throw new Error(`no value of ${name} for an upstream`);
  }
}

/** Among the names before this place. */
function stands(headers: readonly string[], name: string, before: number): boolean {
  for (let at = 0; at < before; at += 2) if (headers[at] === name) return true;
  return false;
}

const BODILESS = new Set([204, 304]);
const MAX_PASSED = 16 * 1024;

export interface JudgedHead extends RelayHead {
  /** Undefined: chunked. */
  readonly length: number | undefined;
  readonly retryAfterMs: number | undefined;
}

/** @returns what is wrong with it, as a word for the log */
export function judgedHead(status: number, headers: AnswerHeaders): JudgedHead | string {
  if (status > 599) return "status";
  const encoding = headers["content-encoding"];
  if (encoding !== undefined && encoding !== "identity") return "content-encoding";
  const { "content-type": type, "content-length": length, metadata } = headers;
  if (headers["transfer-encoding"] === undefined && length === undefined && !BODILESS.has(status)) return "no end";
  if (!mayPass(type)) return "content-type";
  if (!mayPass(length)) return "content-length";
  if (!mayPass(metadata)) return "metadata";
  const retryAfterMs = pause(headers["retry-after"]);
  const size = length === undefined ? undefined : Number(length);
  return { status, headers: passed(type, length, metadata), length: size, retryAfterMs };
}

function mayPass(value: HeaderValue): value is string | undefined {
  return value === undefined || (typeof value === "string" && value.length <= MAX_PASSED && VALUE.test(value));
}

/** @param metadata where vectors stand in an answer of raw bytes */
function passed(
  type: string | undefined,
  length: string | undefined,
  metadata: string | undefined,
): Readonly<Record<string, string>> {
  // What nearly all answers have, without a copy.
  if (metadata === undefined && type !== undefined)
    return length === undefined ? { "content-type": type } : { "content-type": type, "content-length": length };
  return {
    ...(type === undefined ? {} : { "content-type": type }),
    ...(length === undefined ? {} : { "content-length": length }),
    ...(metadata === undefined ? {} : { metadata }),
  };
}

const MAX_PAUSE_S = 3600;

/** Seconds only; a date says as much about its clock as about the pause. */
function pause(value: HeaderValue): number | undefined {
  if (typeof value !== "string" || !/^\d{1,9}$/.test(value)) return undefined;
  return Math.min(Number(value), MAX_PAUSE_S) * 1000;
}
