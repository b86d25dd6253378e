/**
 * Reading a multipart/form-data body: fields into memory, one file to whoever takes it, piece by piece.
 *
 * Invariants: parts, names, fields, headers of parts and the file are bounded, and so is the whole; nothing is cut off
 * in silence; the file is read as fast as it is taken and no faster. Wall: T76. Two fields of one name are refused; a part that
 * does not say what it is is none. Private to the pipeline.
 */
import { Busboy, type BusboyFileStream, type BusboyHeaders } from "@fastify/busboy";
import { Fault, invalid } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import {
  awaitingContinue,
  checkMediaType,
  type MediaType,
  type RawBody,
  readBody,
  requireKnownExpectation,
} from "./_body.ts";
import type { Exchange } from "./_exchange.ts";
import { nodesOwn } from "./_message.ts";
import type { AnyRoute, Fields, FormFile, FormLimits, TakeFile } from "./route.ts";

const FORM_TYPE: MediaType = {
  name: "multipart/form-data",
  pattern: /^multipart\/form-data[ \t]*;[ \t]*boundary=(?:"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,70}"|[!-~]{1,70})[ \t]*$/i,
};
const NAME_BYTES = 100;
const FILE_NAME_CHARACTERS = 255;
const HEADER_BYTES = 4096;
const HEADER_PAIRS = 8;
/** Boundaries and the headers of parts, besides fields and file. */
const FRAME_BYTES = 64 * 1024;
const MIB = 1024 * 1024;

type FormRoute = Pick<AnyRoute<never>, "form" | "limits">;

interface Announced {
  readonly contentType: string;
  readonly fileBytes: number;
  /** Of the whole body. */
  readonly most: number;
  /** Of the file, at the least. */
  readonly atLeast: number;
  readonly limits: FormLimits;
}

/** What can be said about a form before a byte of it is read. @throws Fault */
function judge(exchange: Exchange, route: FormRoute, principal: Principal | undefined): Announced {
  const {
    form: limits,
    limits: { bodyBytes = 0 },
  } = route;
  if (limits === undefined) throw new Error("the route declares no form");
  if (!exchange.hasBody) throw new Fault("invalid_request", "The request has no body.");
  requireKnownExpectation(exchange);
  const { req, options } = exchange;
  const contentType = checkMediaType(req.rawHeaders, FORM_TYPE);
  const fileBytes = Math.min(bodyBytes, capOf(limits, principal, options));
  const around = limits.fields * (limits.fieldBytes + HEADER_BYTES) + FRAME_BYTES;
  const most = fileBytes + around;
  const announced = Number(req.headers["content-length"] ?? 0);
  if (announced > most) throw tooLarge(fileBytes);
  return { contentType, fileBytes, most, atLeast: Math.max(0, announced - around), limits };
}

/** A form that nobody looks into: its bytes, within the bounds of all its parts together. @throws Fault */
export function readFormBytes(
  exchange: Exchange,
  route: FormRoute,
  principal: Principal | undefined,
): RawBody | Promise<RawBody> {
  const { contentType, most } = judge(exchange, route, principal);
  return readBody(exchange, most, contentType);
}

/**
 * @param held the body, where it has been read already
 * @throws Fault unsupported_media_type | invalid_request | payload_too_large | request_timeout | what `take` throws
 */
export async function readForm(
  exchange: Exchange,
  route: FormRoute,
  principal: Principal | undefined,
  take: TakeFile,
  held?: RawBody,
): Promise<Fields> {
  const { contentType, fileBytes, most, atLeast, limits } = judge(exchange, route, principal);
  const { req, res } = nodesOwn(exchange.req, exchange.res);
  const form = new Form(contentType, limits, fileBytes, (file) => take({ ...file, atLeast }));
  if (awaitingContinue.delete(req)) res.writeContinue();
  try {
    if (held?.bytes === undefined) await feed(exchange, form, most, fileBytes);
    else await feedHeld(exchange, form, held.bytes);
    const fields = await exchange.race(form.ended());
    exchange.bodyRead = true;
    return fields;
  } catch (error) {
    // No further byte is taken from a client whose body was refused.
    req.pause();
    form.abandon(error);
    throw error;
  }
}

async function feedHeld(exchange: Exchange, form: Form, bytes: Buffer): Promise<void> {
  await exchange.race(form.during(form.write(bytes)));
  form.end();
}

/** The key's own, where it has one, else the operator's. */
function capOf(
  { file }: FormLimits,
  principal: Principal | undefined,
  { maxAudioBytes, maxUploadBytes }: Exchange["options"],
): number {
  const { audioMegabytes, uploadBytes } = principal?.caps ?? {};
  if (file === "audio") return audioMegabytes === undefined ? maxAudioBytes : audioMegabytes * MIB;
  return uploadBytes ?? maxUploadBytes;
}

/** Hands the body on as it comes; ends when it has ended, or the form has. */
async function feed(exchange: Exchange, form: Form, most: number, fileBytes: number): Promise<void> {
  const { counters, options } = exchange;
  const { req } = nodesOwn(exchange.req, exchange.res);
  const pieces = req.iterator({ destroyOnReturn: false });
  for (;;) {
    const timer = counters.after(options.bodyTimeoutMs, () =>
      exchange.abort(new Fault("request_timeout", "The request body did not arrive in time.")),
    );
    try {
      const piece = await exchange.race(form.during(pieces.next()));
      if (piece.done) break;
      exchange.bytesIn += (piece.value as Buffer).length;
      if (exchange.bytesIn > most) throw tooLarge(fileBytes);
      await exchange.race(form.during(form.write(piece.value as Buffer)));
    } finally {
      timer.end();
    }
  }
  form.end();
}

type TakeBare = (file: Omit<FormFile, "atLeast">) => Promise<void>;

class Form {
  readonly #parser: InstanceType<typeof Busboy>;
  readonly #fields = new Map<string, string>();
  readonly #fileBytes: number;
  #failure: { readonly reason: unknown } | undefined;
  #interrupt: ((reason: unknown) => void) | undefined;
  #file: BusboyFileStream | undefined;
  readonly #parsed: Promise<void>;
  #taken: Promise<void> = Promise.resolve();

  constructor(contentType: string, { fields, fieldBytes }: FormLimits, fileBytes: number, take: TakeBare) {
    this.#fileBytes = fileBytes;
    this.#parser = new Busboy({
      headers: { "content-type": contentType } as BusboyHeaders,
      isPartAFile: (_name, _type, fileName) => fileName !== undefined,
      limits: {
        fieldNameSize: NAME_BYTES,
        fieldSize: fieldBytes,
        fields,
        // One more than what is taken, so that a file of just that size is none that was cut.
        fileSize: fileBytes + 1,
        files: 1,
        parts: fields + 1,
        headerPairs: HEADER_PAIRS,
        headerSize: HEADER_BYTES,
      },
    });
    for (const limit of ["partsLimit", "filesLimit", "fieldsLimit"] as const)
      this.#parser.on(limit, () => this.#fail(new Fault("invalid_request", "The form has too many parts.")));
    this.#parser.on("error", () => this.#fail(new Fault("invalid_request", "The body is not a form that is read.")));
    this.#parser.on("field", (name, value, nameCut, valueCut) => this.#add(name, value, nameCut || valueCut));
    this.#parser.on("file", (name, stream, fileName) => this.#receive(name, stream, fileName, take));
    const parsed = new Promise<void>((resolve) => this.#parser.on("finish", resolve));
    this.#parsed = parsed;
  }

  /** Every part has been taken. */
  ended(): Promise<Fields> {
    return this.during(this.#parsed.then(() => this.#taken).then(() => this.#fields));
  }

  /**
   * The result of the work, or why the form has failed, whichever comes first; one piece of work at a time. A promise
   * of the failure would keep whoever has waited for it, piece for piece, until the form ends.
   */
  during<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#failure === undefined) this.#interrupt = reject;
      else reject(this.#failure.reason);
      work.then(resolve, reject);
    });
  }

  #fail(reason: unknown): void {
    this.#failure ??= { reason };
    this.#interrupt?.(reason);
  }

  async write(piece: Buffer): Promise<void> {
    if (!this.#parser.write(piece)) await new Promise<void>((resolve) => this.#parser.once("drain", resolve));
  }

  end(): void {
    this.#parser.end();
  }

  abandon(error: unknown): void {
    this.#fail(error);
    this.#file?.destroy(error instanceof Error ? error : undefined);
  }

  #add(name: string | undefined, value: string, cut: boolean): void {
    if (name === undefined || name === "" || name.length > NAME_BYTES || cut || value.includes("\0"))
      this.#fail(new Fault("invalid_request", "A field of the form has no name, or is too long."));
    else if (this.#fields.has(name)) this.#fail(invalid(name, "The field stands twice in the form."));
    else this.#fields.set(name, value);
  }

  #receive(field: string | undefined, stream: BusboyFileStream, fileName: string | undefined, take: TakeBare): void {
    this.#file = stream;
    // Read by `take`; one that nobody reads any more must not end the process.
    stream.on("error", () => {});
    const name = (fileName ?? "").toWellFormed().slice(0, FILE_NAME_CHARACTERS);
    stream.on("limit", () => this.abandon(tooLarge(this.#fileBytes)));
    this.#taken = take({ field: field ?? "", name, content: bounded(stream, this.#fileBytes) });
    this.#taken.catch((error: unknown) => this.abandon(error));
  }
}

async function* bounded(stream: BusboyFileStream, most: number): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const piece of stream as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > most) throw tooLarge(most);
    yield piece;
  }
}

function tooLarge(limit: number): Fault {
  return new Fault("payload_too_large", `The file is larger than ${limit} bytes.`);
}
