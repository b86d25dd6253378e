/**
 * Reading a request's body: announced lengths are judged before a byte is read, real ones while reading.
 */
import type { IncomingMessage } from "node:http";
import { FoundInHeaders, headerValues } from "#base/headers.ts";
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import type { Exchange } from "./_exchange.ts";
import { Gathered } from "./_gathered.ts";
import { PlainAnswer } from "./_plain-answer.ts";
import { PlainRequest, type PlainSink } from "./_plain-request.ts";
import { Request } from "./_request.ts";
import type { Timer } from "./_timers.ts";
import type { AnyRoute } from "./route.ts";

export interface MediaType {
  readonly name: string;
  /** Of the whole header. */
  readonly pattern: RegExp;
  /** The name is enough, as nearly everybody writes it: looked at before the pattern, which costs more. */
  readonly alone?: true;
}

/** A body that was read and not looked into. */
export interface RawBody {
  /** Undefined: there is none. */
  readonly bytes: Buffer | undefined;
  /** Of a form. */
  readonly contentType: string | undefined;
}

export const NO_BODY: RawBody = { bytes: undefined, contentType: undefined };

// The media type alone, or with parameters behind a semicolon. RFC 8259 defines none; they are not looked at.
const JSON_TYPE: MediaType = { name: "application/json", pattern: /^application\/json[ \t]*(?:;|$)/i, alone: true };

/** Requests that wait for "100 Continue"; the listener adds them, `readBody` answers when it wants the body. */
export const awaitingContinue = new WeakSet<IncomingMessage>();

const jsonTypes = new FoundInHeaders<string>();

/** As `checkMediaType`, of JSON. */
function checkJsonType(rawHeaders: readonly string[]): void {
  if (jsonTypes.of(rawHeaders) === undefined) jsonTypes.keep(rawHeaders, checkMediaType(rawHeaders, JSON_TYPE));
}

/** @returns the header. @throws Fault unsupported_media_type: the body is of another type, or is encoded */
export function checkMediaType(rawHeaders: readonly string[], { name, pattern, alone }: MediaType): string {
  const types = headerValues(rawHeaders, "content-type");
  const type = types[0] ?? "";
  if (types.length > 1 || !((alone === true && type === name) || pattern.test(type))) {
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
 * A body of JSON as bytes, nobody has looked into. None: there is none, and the schema does not mind.
 * @throws Fault
 */
export function readJsonBody<S>(
  exchange: Exchange,
  { limits }: Pick<AnyRoute<S>, "limits">,
  principal: Principal | undefined,
  schema: NonNullable<AnyRoute<S>["body"]>,
): RawBody | Promise<RawBody> {
  const { req, options } = exchange;
  requireKnownExpectation(exchange);
  if (!exchange.hasBody && schema.safeParse(undefined).success) return NO_BODY;
  checkJsonType(req.rawHeaders);
  if (!exchange.hasBody) throw new Fault("invalid_json", "The request has no body.");
  const limit = Math.min(limits.bodyBytes ?? 0, principal?.caps.bodyBytes ?? options.maxBodyBytes);
  return readBody(exchange, limit);
}

/**
 * The whole body, at most `limit` bytes.
 * @param contentType of a form
 * @throws Fault payload_too_large (reading stops there) | request_timeout | the reason of the abort
 */
export function readBody(exchange: Exchange, limit: number, contentType?: string): RawBody | Promise<RawBody> {
  const { req, res } = exchange;
  const announced = Number(req.headers["content-length"] ?? 0);
  if (announced > limit) throw tooLarge(limit);
  if (req instanceof PlainRequest) return readPlain(exchange, req, { announced, limit, contentType });
  if (!(res instanceof PlainAnswer) && awaitingContinue.delete(req)) res.writeContinue();
  return new Promise((resolve, reject) => {
    const body = new Body(exchange, { announced, limit, contentType }, resolve, reject);
    if (!(req instanceof Request && req.divert(body))) stream(req, body);
  });
}

/** Nearly always the body has come with the head. */
function readPlain(exchange: Exchange, req: PlainRequest, announced: Announced): RawBody | Promise<RawBody> {
  const bytes = req.whole();
  if (bytes === undefined)
    return new Promise((resolve, reject) => req.divert(new Body(exchange, announced, resolve, reject)));
  if (exchange.aborted !== undefined) throw exchange.aborted;
  exchange.bytesIn += bytes.length;
  return read(exchange, bytes, announced.contentType);
}

function read(exchange: Exchange, bytes: Buffer, contentType: string | undefined): RawBody {
  exchange.bodyRead = true;
  if (contentType === undefined) exchange.tap?.("request", bytes);
  return { bytes, contentType };
}

/** A request that is a stream, or of which something lies there already. */
function stream(req: IncomingMessage, body: Body): void {
  req.on("data", (chunk: Buffer) => {
    if (!body.take(chunk)) req.pause();
  });
  req.on("end", () => body.end());
}

interface Announced {
  /** Bytes; 0: not known. */
  readonly announced: number;
  readonly limit: number;
  readonly contentType: string | undefined;
}

/** From so many bytes on, reading a body and looking through it leaves nothing else in the processor's caches. */
const LONG = 64 * 1024;
/** Long ones that came whole in this turn: their calls go on side by side, so that each step's code is fetched once. */
let whole: Body[] = [];

function deliverAll(): void {
  const bodies = whole;
  whole = [];
  for (const body of bodies) body.deliver();
}

class Body implements PlainSink {
  readonly #exchange: Exchange;
  readonly #limit: number;
  readonly #contentType: string | undefined;
  readonly #pieces: Gathered;
  readonly #resolve: (body: RawBody) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #time: Timer;
  #over = false;

  constructor(
    exchange: Exchange,
    { announced, limit, contentType }: Announced,
    resolve: (body: RawBody) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#exchange = exchange;
    this.#limit = limit;
    this.#contentType = contentType;
    this.#pieces = new Gathered(announced);
    this.#resolve = resolve;
    this.#reject = reject;
    this.#time = exchange.counters.after(exchange.options.bodyTimeoutMs, () =>
      exchange.abort(new Fault("request_timeout", "The request body did not arrive in time.")),
    );
    exchange.interrupts((reason) => this.#refuse(reason));
  }

  take(chunk: Buffer): boolean {
    if (this.#counted(chunk.length)) this.#pieces.add(chunk);
    return !this.#over;
  }

  begin(place: Buffer, size: number): boolean {
    if (this.#counted(size)) this.#pieces.begin(place, size);
    return !this.#over;
  }

  room(): Buffer | undefined {
    return this.#over ? undefined : this.#pieces.room();
  }

  filled(size: number): boolean {
    if (this.#counted(size)) this.#pieces.filled(size);
    return !this.#over;
  }

  #counted(size: number): boolean {
    if (this.#over) return false;
    this.#exchange.bytesIn += size;
    if (this.#exchange.bytesIn > this.#limit) this.#refuse(tooLarge(this.#limit));
    return !this.#over;
  }

  end(): void {
    if (this.#over) return;
    this.#time.end();
    if (this.#exchange.bytesIn < LONG) this.deliver();
    else if (whole.push(this) === 1) setImmediate(deliverAll);
  }

  /** It is whole. Who has left meanwhile gets none. */
  deliver(): void {
    if (this.#over) return;
    this.#over = true;
    this.#resolve(read(this.#exchange, this.#pieces.bytes(), this.#contentType));
  }

  #close(): void {
    this.#over = true;
    this.#time.end();
  }

  /** No further byte is taken from a client whose body was refused. */
  #refuse(reason: Fault): void {
    if (this.#over) return;
    this.#close();
    this.#exchange.req.pause();
    this.#reject(reason);
  }
}

function tooLarge(limit: number): Fault {
  return new Fault("payload_too_large", `The request body is larger than ${limit} bytes.`);
}
