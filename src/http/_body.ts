/**
 * Reading a request's body: announced lengths are judged before a byte is read, real ones while reading.
 */
import type { IncomingMessage } from "node:http";
import { headerValues } from "#base/headers.ts";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import type { Exchange } from "./_exchange.ts";
import { Gathered } from "./_gathered.ts";
import type { AnyRoute } from "./route.ts";

export interface MediaType {
  readonly name: string;
  /** Of the whole header. */
  readonly pattern: RegExp;
}

/** A body that was read and not looked into. */
export interface RawBody {
  /** Undefined: there is none. */
  readonly bytes: Buffer | undefined;
  /** Of a form. */
  readonly contentType: string | undefined;
}

// The media type alone, or with parameters behind a semicolon. RFC 8259 defines none; they are not looked at.
const JSON_TYPE: MediaType = { name: "application/json", pattern: /^application\/json[ \t]*(?:;|$)/i };

/** Requests that wait for "100 Continue"; the listener adds them, `readBody` answers when it wants the body. */
export const awaitingContinue = new WeakSet<IncomingMessage>();

/** @returns the header. @throws Fault unsupported_media_type: the body is of another type, or is encoded */
export function checkMediaType(rawHeaders: readonly string[], { name, pattern }: MediaType = JSON_TYPE): string {
  const [type = "", ...more] = headerValues(rawHeaders, "content-type");
  if (more.length > 0 || !pattern.test(type)) {
    throw new Fault("unsupported_media_type", `Unsupported Media Type: Only '${name}' is allowed`, {
      param: "Content-Type",
    });
  }
  for (const coding of headerValues(rawHeaders, "content-encoding")) {
    if (coding.toLowerCase() !== "identity") {
      throw new Fault("unsupported_media_type", "A body with a content encoding is not taken.", {
        param: "Content-Encoding",
      });
    }
  }
  return type;
}

/** @throws Fault invalid_request */
export function requireKnownExpectation({ req }: Exchange): void {
  const expectation = req.headers.expect;
  if (expectation !== undefined && expectation.toLowerCase() !== "100-continue")
    throw new Fault("invalid_request", "The only expectation that is met is 100-continue.", { param: "Expect" });
}

/**
 * A body of JSON as bytes, nobody has looked into.
 * @returns undefined: there is none, and the schema does not mind
 * @throws Fault
 */
export async function readJsonBody<S>(
  exchange: Exchange,
  { limits }: Pick<AnyRoute<S>, "limits">,
  principal: Principal | undefined,
  schema: NonNullable<AnyRoute<S>["body"]>,
): Promise<Buffer | undefined> {
  const { req, options } = exchange;
  requireKnownExpectation(exchange);
  if (!exchange.hasBody && schema.safeParse(undefined).success) return undefined;
  checkMediaType(req.rawHeaders);
  if (!exchange.hasBody) throw new Fault("invalid_json", "The request has no body.");
  const limit = Math.min(limits.bodyBytes ?? 0, principal?.caps.bodyBytes ?? options.maxBodyBytes);
  const bytes = await readBody(exchange, limit);
  exchange.tap?.("request", bytes);
  return bytes;
}

/**
 * The whole body, at most `limit` bytes.
 * @throws Fault payload_too_large (reading stops there) | request_timeout | the reason of the abort
 */
export async function readBody(exchange: Exchange, limit: number): Promise<Buffer> {
  const { req, res, counters, options } = exchange;
  if (Number(req.headers["content-length"] ?? 0) > limit) throw tooLarge(limit);
  if (awaitingContinue.delete(req)) res.writeContinue();
  const cancel = counters.after(options.bodyTimeoutMs, () =>
    exchange.abort(new Fault("request_timeout", "The request body did not arrive in time.")),
  );
  try {
    const body = await collect(exchange, limit);
    exchange.bodyRead = true;
    return body;
  } finally {
    cancel();
  }
}

async function collect(exchange: Exchange, limit: number): Promise<Buffer> {
  const { req } = exchange;
  const body = new Gathered(Math.min(Number(req.headers["content-length"] ?? 0), limit));
  let onData: ((chunk: Buffer) => void) | undefined;
  let onEnd: (() => void) | undefined;
  const whole = new Promise<void>((resolve, reject) => {
    onData = (chunk) => {
      exchange.bytesIn += chunk.length;
      if (exchange.bytesIn > limit) {
        req.pause();
        reject(tooLarge(limit));
      } else body.add(chunk);
    };
    onEnd = resolve;
    req.on("data", onData);
    req.on("end", onEnd);
  });
  try {
    await exchange.race(whole);
  } catch (error) {
    // No further byte is taken from a client whose body was refused.
    req.pause();
    throw error;
  } finally {
    if (onData !== undefined) req.off("data", onData);
    if (onEnd !== undefined) req.off("end", onEnd);
  }
  return body.bytes();
}

function tooLarge(limit: number): Fault {
  return new Fault("payload_too_large", `The request body is larger than ${limit} bytes.`);
}
