/**
 * A call that upstream servers answer: judged by its route's rule, counted, sent to one of its model's servers, and its
 * answer passed on.
 *
 * Invariants: what the client may not decide stands in no request to an upstream (Wall: T130): the tenant's salt, what
 * its key may say of priority, an id of ours, no media but what the guard has fetched; the work is reserved before it is
 * sent and settled on every path; who leaves cancels it. Called by the relay that app gives to http.
 */
import { createHmac } from "node:crypto";
import { newId } from "#base/ids.ts";
import { stringifyJson } from "#base/json.ts";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { NO_USAGE, type Reservation } from "#core/metering.ts";
import { ownedKey } from "#core/owned.ts";
import type { Grant, Scope } from "#core/principal.ts";
import type { UpstreamAnswer, UpstreamRequest } from "#core/relay.ts";
import { capsFor, type RequestCaps } from "#core/request-caps.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import { inlineMedia } from "#egress/media/inline.ts";
import { priorityOf } from "#serving/_priority.ts";
import type { Serving } from "#serving/context.ts";
import { countedAs, type ServedModel } from "#serving/models.ts";
import { audioForm, judgeAudio } from "#wire/relay/audio.ts";
import { type DerenderField, derenderBody, judgeDerender } from "#wire/relay/derender.ts";
import type { WrittenForm } from "#wire/relay/form.ts";
import { judgeRelay, type RelayVerdict, relayBody } from "#wire/relay/judge.ts";
import type { RelayMedia } from "#wire/relay/media.ts";
import type { RelayRule } from "#wire/relay/rules.ts";
import type { Shown } from "#wire/relay/stream.ts";
import { type Estimate, expect, expectAudio } from "./_estimate.ts";
import type { UpstreamPool } from "./pool.ts";
import { type Expected, StreamUsage, WholeUsage } from "./readers.ts";
import { SettledSource } from "./settled-source.ts";

/** What answers a model. */
export interface ModelUpstreams {
  readonly pool: UpstreamPool;
  /** As its servers call it; undefined: as the client does. */
  readonly name?: string;
  /** Of its window; 0: not known yet. */
  contextLength(): number;
}

export interface ForwardingOptions {
  readonly serving: Serving;
  /** Undefined: this server computes it itself. */
  readonly upstreamsOf: (model: ServedModel) => ModelUpstreams | undefined;
  readonly media: Pick<MediaFetcher, "fetchAll">;
  /** The secret under which tenants' salts are made: the same on every gateway of a pool. */
  readonly saltKey: Uint8Array;
  /** Fields of bodies that go on though nothing here knows them. */
  readonly passed: ReadonlySet<string>;
}

export interface ForwardCall {
  readonly method: string;
  /** As declared. */
  readonly path: string;
  readonly query: string;
  readonly grant: Grant<Scope>;
  readonly body: Buffer;
  /** Of a form. */
  readonly contentType?: string | undefined;
  readonly requestId: string;
  readonly signal: AbortSignal;
  /** Nothing is read of the body any more; not called where that is not certain. */
  readonly spent?: () => void;
}

export interface Forwarded {
  readonly answer: UpstreamAnswer;
  /** Server-sent events. */
  readonly stream: boolean;
}

const JSON_TYPE = "application/json";
/** Salts that are kept made. */
const MOST_SALTS = 10_000;

export class Forwarding {
  readonly #options: ForwardingOptions;
  readonly #salts = new Map<string, string>();
  /** Calls on their way, by their upstream ids: whose they are. */
  readonly #open = new Map<string, string>();

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  /** The tenant whose call has this id upstream. */
  ownerOf(id: string): string | undefined {
    return this.#open.get(id);
  }

  /** @returns undefined: the model runs here. @throws Fault */
  async forward(rule: RelayRule, call: ForwardCall): Promise<Forwarded | undefined> {
    const id = newId();
    return this.carry(call, workOf(this.judge(rule, call, id), id));
  }

  /** @param id of the call upstream. @throws Fault */
  judge(rule: RelayRule, call: Pick<ForwardCall, "grant" | "body">, id: string): RelayVerdict {
    const { serving } = this.#options;
    const { principal } = call.grant;
    return judgeRelay(rule, call.body, {
      caps: capsFor(serving.caps, principal.caps),
      salt: (own) => this.#salt(principal.tenant, own),
      priority: (asked) => priorityOf(asked, principal, serving.priorities),
      requestId: id,
      passed: this.#options.passed,
    });
  }

  /** The model, if it does not run here. @throws Fault model_not_found */
  elsewhere(name: string | undefined, { principal }: Grant<Scope>): ServedModel | undefined {
    const model = this.#options.serving.models.resolve(name, principal);
    return this.#options.upstreamsOf(model) === undefined ? undefined : model;
  }

  /** Speech, in a form. @returns undefined: the model runs here. @throws Fault */
  forwardAudio(call: ForwardCall): Promise<Forwarded | undefined> {
    const verdict = judgeAudio(call.body, call.contentType, this.#caps(call));
    return this.carry(call, {
      ...{ id: newId(), model: verdict.model, strip: verdict.strip },
      expect: (window) => expectAudio(verdict, window),
      write: (model) => audioForm(verdict, model),
    });
  }

  /** What was generated, read back. @returns undefined: the model runs here. @throws Fault */
  forwardDerender(field: DerenderField, call: ForwardCall): Promise<Forwarded | undefined> {
    const verdict = judgeDerender(call.body, field, this.#caps(call));
    return this.carry(call, {
      ...{ id: newId(), model: verdict.model, strip: false },
      // Nothing is computed by a model.
      expect: () => ({ promptTokens: verdict.tokens, completionTokens: 0, sequences: 1 }),
      write: (model) => ({ contentType: JSON_TYPE, pieces: [derenderBody(verdict, model)] }),
    });
  }

  #caps({ grant }: ForwardCall): RequestCaps {
    return capsFor(this.#options.serving.caps, grant.principal.caps);
  }

  /** What was judged. @returns undefined: the model runs here. @throws Fault */
  async carry(call: ForwardCall, work: Work): Promise<Forwarded | undefined> {
    const { serving, upstreamsOf } = this.#options;
    const { principal } = call.grant;
    const model = serving.models.resolve(work.model, principal);
    const upstreams = upstreamsOf(model);
    if (upstreams === undefined) return undefined;
    const media = await this.#fetched(work.media ?? [], call);
    const expected = work.expect(upstreams.contextLength());
    const reservation = await call.grant.meter.reserve({ model: countedAs(model), ...expected });
    this.#open.set(work.id, principal.tenant);
    try {
      const written = work.write(upstreams.name, media);
      return await this.#send(call, upstreams, { work, written, expected, model, reservation });
    } catch (error) {
      this.#open.delete(work.id);
      await reservation.settle(NO_USAGE);
      throw error;
    }
  }

  async #send(
    { method, path, query, signal, grant, spent }: ForwardCall,
    upstreams: ModelUpstreams,
    { work, written, expected, model, reservation }: Sending,
  ): Promise<Forwarded> {
    const { id, prompt = [] } = work;
    const request: UpstreamRequest = {
      method,
      target: query === "" ? path : `${path}?${query}`,
      headers: ["content-type", written.contentType, "x-request-id", id],
      body: written.pieces,
    };
    const answer = await upstreams.pool.send(request, {
      tokens: expected.promptTokens + expected.completionTokens,
      prefix: { salt: ownedKey(grant.principal.tenant, model.names[0]), pieces: prompt },
      share: this.#options.serving.shareOf(grant.principal),
      ...(model.lora === undefined ? {} : { adapter: model.names[0] }),
      idempotent: true,
      signal,
      ...(work.maxBytes === undefined ? {} : { maxBytes: work.maxBytes }),
      ...(spent === undefined ? {} : { spent }),
    });
    const type = answer.headers["content-type"] ?? "";
    const stream = type.startsWith("text/event-stream");
    const shown = shownBy(work, model, upstreams.name);
    const keep = work.response?.keep;
    const expectation: Expected = {
      promptTokens: expected.promptTokens,
      strip: work.strip,
      ...(shown === undefined ? {} : { shown, keeps: keep !== undefined }),
    };
    const good = answer.status < 400;
    const whole = { good, json: type.startsWith(JSON_TYPE), length: lengthOf(answer.headers["content-length"]) };
    const reader = stream ? new StreamUsage(expectation) : new WholeUsage(expectation, whole);
    const settle = async (used: Usage, lost: boolean): Promise<void> => {
      this.#open.delete(id);
      answer.settled(used.promptTokens + used.completionTokens);
      // What cannot be booked now the book keeps; the answer is the client's all the same.
      await reservation.settle(lost || !good ? NO_USAGE : used).catch(() => {});
    };
    // Another name is longer or shorter.
    const { "content-length": length, ...rest } = answer.headers;
    const same = shown === undefined && !stream;
    const headers = same && length !== undefined ? { ...rest, "content-length": length } : rest;
    const kept =
      keep === undefined || !(reader instanceof StreamUsage)
        ? undefined
        : () => (reader.failed ? Promise.resolve() : keep(reader.response));
    const source = new SettledSource(answer.source, reader, settle, kept);
    return { answer: { status: answer.status, headers, source }, stream };
  }

  async #fetched(media: readonly RelayMedia[], { grant, requestId, signal }: ForwardCall): Promise<readonly string[]> {
    if (media.length === 0) return [];
    const places = media.map(({ kind, url, param }) => {
      if (kind === "file")
        throw new Fault("invalid_request", "Files are taken as data: URLs in file_data only.", { param });
      return { kind, url, param };
    });
    const caller = { tenant: grant.principal.tenant, requestId, signal };
    const fetched = await inlineMedia(this.#options.media, places, caller);
    return fetched.map(({ url }) => url);
  }

  /**
   * Wall: T47. What is computed for one tenant is found by none other, whatever salt a client sends: the salt is made of
   * the tenant's name and the client's own, under a key that no client has.
   */
  #salt(tenant: string, own: string | undefined): string {
    const name = ownedKey(tenant, own ?? "");
    const known = this.#salts.get(name);
    if (known !== undefined) return known;
    const salt = createHmac("sha256", this.#options.saltKey).update(name).digest("base64url");
    if (this.#salts.size >= MOST_SALTS) this.#salts.clear();
    this.#salts.set(name, salt);
    return salt;
  }
}

/** A call as its route's rule has judged it. */
export interface Work {
  readonly id: string;
  /** As the client calls it. */
  readonly model: string | undefined;
  /** Usage was asked for on the server's account. */
  readonly strip: boolean;
  readonly media?: readonly RelayMedia[];
  /** Where prompts' bytes are, for telling them apart. */
  readonly prompt?: readonly Uint8Array[];
  /** Of its answer; absent: as many as come. */
  readonly maxBytes?: number;
  /** Of an answer that is a response. */
  readonly response?: ResponseWork;
  /** @param window of its model; 0: not known */
  readonly expect: (window: number) => Estimate;
  /** @param model as the upstream calls it; undefined: as the client does */
  readonly write: (model: string | undefined, media: readonly string[]) => WrittenForm;
}

export interface ResponseWork {
  /** What it says whatever the upstream wrote. */
  readonly fields: Readonly<Record<string, string | boolean | null>>;
  /**
   * Called with what a stream ended with, before the client sees that end; undefined: nothing that can be read.
   * @throws Fault it cannot be kept
   */
  readonly keep?: (response: Uint8Array | undefined) => Promise<void>;
}

interface Sending {
  readonly work: Work;
  readonly written: WrittenForm;
  readonly expected: Estimate;
  readonly model: ServedModel;
  readonly reservation: Reservation;
}

/** @param id of the call upstream */
export function workOf(verdict: RelayVerdict, id: string): Work {
  return {
    id,
    ...{ model: verdict.model, strip: verdict.strip, media: verdict.media, prompt: promptOf(verdict) },
    expect: (window) => expect(verdict, window),
    write: (model, media) => ({
      contentType: JSON_TYPE,
      pieces: relayBody(verdict, { ...(model === undefined ? {} : { model }), media }),
    }),
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

const PROMPTS = ["messages", "prompt", "input", "system", "instructions", "token_ids", "query"];

/** Where the prompt's bytes are, for telling prompts apart. */
function promptOf({ body, scan }: RelayVerdict): readonly Uint8Array[] {
  return scan.members.filter(({ name }) => PROMPTS.includes(name)).map(({ start, end }) => body.subarray(start, end));
}

function lengthOf(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Number(text);
}
