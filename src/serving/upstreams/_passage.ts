/**
 * A call on its way to an upstream and back: reserved, sent, answered, settled.
 *
 * One object a call, which the pool asks what it has to know and tells what became of it; one promise for all until the
 * answer's head. Invariants: what was reserved is settled on every path, once; the call is open (`abort` finds it) from its
 * reservation to its booking. Made by forwarding.ts.
 */
import { stringifyJson } from "#base/json.ts";
import type { OpenCall, OpenCalls } from "#base/open-calls.ts";
import type { Usage } from "#core/calls.ts";
import type { Fault } from "#core/fault.ts";
import type { FairShare } from "#core/generate.ts";
import { NO_USAGE, type Reservation } from "#core/metering.ts";
import { ownedKey } from "#core/owned.ts";
import type { RelaySource } from "#core/relay.ts";
import type { Serving } from "#serving/context.ts";
import { countedAs, type ServedModel } from "#serving/models.ts";
import type { Shown } from "#wire/relay/stream.ts";
import type { Estimate } from "./_estimate.ts";
import type { Work } from "./_work.ts";
import type { Prefix } from "./affinity.ts";
import type { ForwardCall, Forwarded, ModelUpstreams } from "./forwarding.ts";
import type { AnswerHead, Answering, PoolCall, Receiver } from "./pool.ts";
import { type Expected, StreamUsage, WholeUsage } from "./readers.ts";
import { SettledSource } from "./settled-source.ts";

export interface PassageParts {
  readonly serving: Pick<Serving, "shareOf">;
  /** Those on their way. */
  readonly open: OpenCalls<Passage>;
  readonly call: ForwardCall;
  readonly work: Work;
  readonly model: ServedModel;
  readonly upstreams: ModelUpstreams;
  /** Fetched. */
  readonly media: readonly string[];
}

const JSON_TYPE = "application/json";

export class Passage implements PoolCall, Receiver, OpenCall {
  // PoolCall
  readonly tokens: number;
  readonly idempotent = true;
  readonly adapter: string | undefined;
  readonly signal: AbortSignal | undefined;
  readonly maxBytes: number | undefined;
  // OpenCall
  place = -1;
  readonly #parts: PassageParts;
  readonly #expected: Estimate;
  #resolve: ((forwarded: Forwarded) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;
  #reservation: Reservation | undefined;
  #by: Answering | undefined;
  /** The answer is what was asked for: another costs nothing. */
  #good = false;

  constructor(parts: PassageParts) {
    const { call, work, model, upstreams } = parts;
    this.#parts = parts;
    this.#expected = work.expect(upstreams.contextLength());
    this.tokens = this.#expected.promptTokens + this.#expected.completionTokens;
    this.adapter = model.lora === undefined ? undefined : model.names[0];
    // It is made for who looks at it.
    this.signal = call.onAbort === undefined ? call.signal : undefined;
    this.maxBytes = work.maxBytes;
  }

  /** Of the call upstream. */
  get id(): string {
    return this.#parts.work.id;
  }

  get tenant(): string {
    return this.#parts.call.grant.principal.tenant;
  }

  /** Once. @throws Fault */
  run(): Promise<Forwarded> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      const { call, model } = this.#parts;
      const reserved = call.grant.meter.reserve({ ...this.#expected, model: countedAs(model) });
      if (reserved instanceof Promise) reserved.then((reservation) => this.#send(reservation), reject);
      else this.#send(reserved);
    });
  }

  #send(reservation: Reservation): void {
    const { call, work, upstreams, media, open } = this.#parts;
    const { method, path, query } = call;
    this.#reservation = reservation;
    open.add(this);
    try {
      const { contentType, pieces } = work.write(upstreams.name, media);
      const target = query === "" ? path : `${path}?${query}`;
      const headers = ["content-type", contentType, "x-request-id", work.id];
      upstreams.pool.ask({ method, target, headers, body: pieces }, this, this);
    } catch (error) {
      this.failed(error);
    }
  }

  // PoolCall

  get prefix(): Prefix {
    const { call, work, model } = this.#parts;
    return { salt: ownedKey(call.grant.principal.tenant, model.names[0]), pieces: work.prompt ?? [] };
  }

  get share(): FairShare {
    return this.#parts.serving.shareOf(this.#parts.call.grant.principal);
  }

  onAbort(run: (reason: Fault) => void): void {
    this.#parts.call.onAbort?.(run);
  }

  spent(): void {
    this.#parts.call.spent?.();
  }

  // Receiver

  failed(error: unknown): void {
    this.#parts.open.delete(this);
    const told = (): void => this.#reject?.(error);
    if (this.#reservation === undefined) told();
    else this.#reservation.settle(NO_USAGE).then(told, this.#reject);
  }

  answered(head: AnswerHead, source: RelaySource, by: Answering): void {
    try {
      this.#by = by;
      this.#good = head.status < 400;
      this.#resolve?.(this.#forwarded(head, source));
    } catch (error) {
      source.cancel();
      this.failed(error);
    }
  }

  #forwarded({ status, headers, length }: AnswerHead, inner: RelaySource): Forwarded {
    const { work, model, upstreams } = this.#parts;
    const type = headers["content-type"] ?? "";
    const stream = type.startsWith("text/event-stream");
    const shown = shownBy(work, model, upstreams.name);
    const expected = this.#expectation(shown);
    const reader = stream
      ? new StreamUsage(expected)
      : new WholeUsage(expected, { good: this.#good, json: type.startsWith(JSON_TYPE), length });
    const source = new SettledSource(inner, reader, this.#settle, this.#keeper(reader));
    // Another name is longer or shorter.
    const same = length === undefined || (shown === undefined && !stream);
    return { answer: { status, headers: same ? headers : withoutLength(headers), source }, stream };
  }

  #expectation(shown: Shown | undefined): Expected {
    const { strip, response } = this.#parts.work;
    const { promptTokens } = this.#expected;
    if (shown === undefined) return { promptTokens, strip };
    return { promptTokens, strip, shown, keeps: response?.keep !== undefined };
  }

  #keeper(reader: StreamUsage | WholeUsage): (() => Promise<void>) | undefined {
    const keep = this.#parts.work.response?.keep;
    if (keep === undefined || !(reader instanceof StreamUsage)) return undefined;
    return () => (reader.failed ? Promise.resolve() : keep(reader.response));
  }

  readonly #settle = (used: Usage, lost: boolean): Promise<void> => {
    this.#parts.open.delete(this);
    this.#by?.settled(used.promptTokens + used.completionTokens);
    return this.#reservation?.settle(lost || !this.#good ? NO_USAGE : used) ?? Promise.resolve();
  };
}

/** What stands in the answer in place of what the upstream says. @param own the upstream's name for the model */
function shownBy({ model: asked, response }: Work, model: ServedModel, own: string | undefined): Shown | undefined {
  const name = asked ?? model.names[0];
  if (response !== undefined) {
    const fields = Object.entries({ ...response.fields, model: name });
    return { where: ["id", "output"], edits: new Map(fields.map(([field, value]) => [field, stringifyJson(value)])) };
  }
  if (own === undefined || own === name) return undefined;
  return { where: ["model"], edits: new Map([["model", stringifyJson(name)]]) };
}

function withoutLength({ "content-length": _length, ...rest }: AnswerHead["headers"]): AnswerHead["headers"] {
  return rest;
}
