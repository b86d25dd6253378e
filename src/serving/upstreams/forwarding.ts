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
import { OpenCalls } from "#base/open-calls.ts";
import { Fault } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import type { Grant, Principal, Scope } from "#core/principal.ts";
import type { UpstreamAnswer } from "#core/relay.ts";
import { capsFor, type RequestCaps } from "#core/request-caps.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import { inlineMedia } from "#egress/media/inline.ts";
import { priorityOf } from "#serving/_priority.ts";
import type { Serving } from "#serving/context.ts";
import type { ServedModel } from "#serving/models.ts";
import { audioForm, judgeAudio } from "#wire/relay/audio.ts";
import { type DerenderField, derenderBody, judgeDerender } from "#wire/relay/derender.ts";
import { judgeRelay, type RelayFacts, type RelayVerdict } from "#wire/relay/judge.ts";
import type { RelayMedia } from "#wire/relay/media.ts";
import type { RelayRule } from "#wire/relay/rules.ts";
import { expectAudio } from "./_estimate.ts";
import { Passage } from "./_passage.ts";
import { JsonWork, type Work } from "./_work.ts";
import type { UpstreamPool } from "./pool.ts";

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
  /** In its place, and cheaper: one listener, the last; called at once where the call is over. */
  onAbort?: ((run: (reason: Fault) => void) => void) | undefined;
  /** Nothing is read of the body any more; not called where that is not certain. */
  spent?(): void;
}

export interface Forwarded {
  readonly answer: UpstreamAnswer;
  /** Server-sent events. */
  readonly stream: boolean;
}

const NO_MEDIA: readonly string[] = [];
/** Salts that are kept made. */
const MOST_SALTS = 10_000;

export class Forwarding {
  readonly #options: ForwardingOptions;
  readonly #salts = new Map<string, string>();
  readonly #open = new OpenCalls<Passage>();

  constructor(options: ForwardingOptions) {
    this.#options = options;
  }

  /** The calls on their way that have one of these ids upstream; one look at each, however many ids there are. */
  among(ids: readonly string[]): readonly Pick<Passage, "id" | "tenant">[] {
    const wanted = new Set(ids);
    return this.#open.all().filter(({ id }) => wanted.has(id));
  }

  /** @returns undefined: the model runs here. @throws Fault */
  forward(rule: RelayRule, call: ForwardCall): Promise<Forwarded | undefined> {
    const id = newId();
    return this.carry(call, new JsonWork(this.judge(rule, call, id), id));
  }

  /** @param id of the call upstream. @throws Fault */
  judge(rule: RelayRule, { grant, body }: Pick<ForwardCall, "grant" | "body">, id: string): RelayVerdict {
    const { serving, passed } = this.#options;
    return judgeRelay(rule, body, new Facts(serving, grant.principal, { passed, requestId: id, salts: this.#salt }));
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
      write: (model) => ({ contentType: "application/json", pieces: [derenderBody(verdict, model)] }),
    });
  }

  #caps({ grant }: ForwardCall): RequestCaps {
    return capsFor(this.#options.serving.caps, grant.principal.caps);
  }

  /** What was judged. @returns undefined: the model runs here. @throws Fault, at once or later */
  carry(call: ForwardCall, work: Work): Promise<Forwarded | undefined> {
    const { serving, upstreamsOf } = this.#options;
    const model = serving.models.resolve(work.model, call.grant.principal);
    const upstreams = upstreamsOf(model);
    if (upstreams === undefined) return Promise.resolve(undefined);
    const parts = { serving, open: this.#open, call, work, model, upstreams, media: NO_MEDIA };
    const { media } = work;
    if (media === undefined || media.length === 0) return new Passage(parts).run();
    return this.#fetched(media, call).then((fetched) => new Passage({ ...parts, media: fetched }).run());
  }

  async #fetched(media: readonly RelayMedia[], { grant, requestId, signal }: ForwardCall): Promise<readonly string[]> {
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
  readonly #salt = (tenant: string, own: string | undefined): string => {
    const name = ownedKey(tenant, own ?? "");
    const known = this.#salts.get(name);
    if (known !== undefined) return known;
    const salt = createHmac("sha256", this.#options.saltKey).update(name).digest("base64url");
    if (this.#salts.size >= MOST_SALTS) this.#salts.clear();
    this.#salts.set(name, salt);
    return salt;
  };
}

interface FactsOptions extends Pick<RelayFacts, "passed" | "requestId"> {
  readonly salts: (tenant: string, own: string | undefined) => string;
}

/** What the server decides about a call. */
class Facts implements RelayFacts {
  readonly caps: RequestCaps;
  readonly passed: RelayFacts["passed"];
  readonly requestId: string;
  readonly #serving: Serving;
  readonly #principal: Principal;
  readonly #salts: FactsOptions["salts"];

  constructor(serving: Serving, principal: Principal, { passed, requestId, salts }: FactsOptions) {
    this.caps = capsFor(serving.caps, principal.caps);
    this.passed = passed;
    this.requestId = requestId;
    this.#serving = serving;
    this.#principal = principal;
    this.#salts = salts;
  }

  salt(own: string | undefined): string {
    return this.#salts(this.#principal.tenant, own);
  }

  priority(asked: number | undefined): number {
    return priorityOf(asked, this.#principal, this.#serving.priorities);
  }
}
