/**
 * Media that a request names: from a URL to bytes that are what they should be, or a refusal that tells nothing.
 *
 * Invariants: nothing is fetched but through the guard, from the operator's domains; all of a fetch, its wait for a turn
 * included, ends at the kind's deadline or with the caller's signal; nothing is shared between tenants, neither a fetch
 * nor what is kept of it; each fetch is one record.
 * Callers: serving and the door in front of other servers, by way of app.
 */
import { decided, EgressEnd, type EgressObserver, type FetchTrace } from "#egress/decision.ts";
import { type GuardOptions, guardedGet, judgedUrl } from "#egress/guarded-fetch.ts";
import { EgressError } from "#egress/policy.ts";
import type { MediaCache } from "./cache.ts";
import { isDataUrl, readDataUrl } from "./data-url.ts";
import type { MediaKind } from "./formats.ts";
import type { LocalMedia } from "./local.ts";
import { type MediaRefusal, refusal } from "./refusal.ts";
import { type TurnLimits, Turns } from "./turns.ts";
import { type Media, type VerifyOptions, verifyMedia } from "./verify.ts";

export interface MediaOptions extends VerifyOptions {
  /** Checked by domains.ts; none: no media URLs at all. */
  readonly domains: readonly string[];
  readonly plainHttp: boolean;
  /** Of the domains. */
  readonly ports: readonly number[];
  /** Hops after the first. */
  readonly redirects: number;
  readonly refusedNetworks: readonly string[];
  readonly timeoutMs: Readonly<Record<MediaKind, number>>;
  readonly maxBytes: Readonly<Record<MediaKind, number>>;
  readonly turns: TurnLimits;
  /** Of one request's media. */
  readonly perRequest: { readonly items: number; readonly bytes: number };
  /** Undefined: no file: URLs. */
  readonly local: LocalMedia | undefined;
  /** Undefined: nothing is kept. */
  readonly cache: MediaCache | undefined;
  readonly observer: EgressObserver;
  /** For tests: over what the rest says. */
  readonly guard?: Partial<Omit<GuardOptions, "trace" | "signal" | "domains">>;
}

export interface MediaRequest {
  readonly url: string;
  readonly kind: MediaKind;
}

export interface MediaCaller {
  readonly tenant: string;
  readonly requestId?: string;
  readonly signal: AbortSignal;
}

export type MediaOutcome = { readonly media: Media } | { readonly refusal: MediaRefusal };

/** The one that was refused, by its place in the list. */
export type AllMedia = { readonly all: readonly Media[] } | { readonly refusal: MediaRefusal; readonly index: number };

/** Longer than what others sign into a query; shorter than what a header line holds. */
const MAX_URL = 8192;
const ACCEPT: Readonly<Record<MediaKind, string>> = {
  image: "image/png, image/jpeg, image/gif, image/webp",
  audio: "audio/*",
  video: "video/*",
};

export class MediaFetcher {
  readonly #options: MediaOptions;
  readonly #turns: Turns;

  constructor(options: MediaOptions) {
    this.#options = options;
    this.#turns = new Turns(options.turns);
  }

  /** Never throws for what a client or a server may do. */
  fetch(request: MediaRequest, caller: MediaCaller): Promise<MediaOutcome> {
    if (isDataUrl(request.url)) return Promise.resolve(this.#own(request));
    if (/^file:/i.test(request.url)) return this.#local(request, caller);
    if (!/^https?:/i.test(request.url)) return Promise.resolve({ refusal: refusal("bad_url") });
    if (this.#options.domains.length === 0) return Promise.resolve({ refusal: refusal("off") });
    return this.#remote(request, caller);
  }

  /** All media of a request, or the first refusal; the others are not waited for. */
  async fetchAll(requests: readonly MediaRequest[], caller: MediaCaller): Promise<AllMedia> {
    const { items, bytes: most } = this.#options.perRequest;
    if (requests.length > items)
      return { refusal: { kind: "too_many", message: `More than ${items} media in one request.` }, index: items };
    const stop = new AbortController();
    const signal = AbortSignal.any([caller.signal, stop.signal]);
    let first: { refusal: MediaRefusal; index: number } | undefined;
    let total = 0;
    const one = async (request: MediaRequest, index: number): Promise<Media | undefined> => {
      const outcome = await this.fetch(request, { ...caller, signal });
      total += "media" in outcome ? outcome.media.bytes.length : 0;
      const large: MediaRefusal = { kind: "too_many", message: `More than ${most} bytes of media in one request.` };
      const no = "refusal" in outcome ? outcome.refusal : total > most ? large : undefined;
      if (no === undefined) return "media" in outcome ? outcome.media : undefined;
      first ??= { refusal: no, index };
      stop.abort();
      return undefined;
    };
    const all = await Promise.all(requests.map(one));
    return first ?? { all: all.filter((media) => media !== undefined) };
  }

  /** What the client itself sent may be told about. */
  #own({ url, kind }: MediaRequest): MediaOutcome {
    const read = readDataUrl(url, this.#options.maxBytes[kind]);
    const media = "problem" in read ? read : verifyMedia(read.bytes, kind, read.type, this.#options);
    return "problem" in media ? { refusal: { kind: "bad_content", message: sentence(media.problem) } } : { media };
  }

  async #local({ url, kind }: MediaRequest, { tenant, requestId, signal }: MediaCaller): Promise<MediaOutcome> {
    const { local, observer, maxBytes } = this.#options;
    if (local === undefined) return { refusal: refusal("off") };
    const who = { kind, tenant, ...(requestId === undefined ? {} : { requestId }) };
    return outcomeOf(() =>
      decided(who, observer, async (trace) => {
        trace.host = "file:";
        const over = await this.#turns.take(tenant, signal).catch((error: unknown) => left(error, signal));
        try {
          const bytes = await local.read(url, maxBytes[kind]);
          trace.bytes = bytes.length;
          return this.#verified(bytes, kind, undefined);
        } finally {
          over();
        }
      }),
    );
  }

  async #remote(request: MediaRequest, caller: MediaCaller): Promise<MediaOutcome> {
    const { tenant, requestId } = caller;
    const who = { kind: request.kind, tenant, ...(requestId === undefined ? {} : { requestId }) };
    let asked = false;
    return outcomeOf(
      () =>
        decided(who, this.#options.observer, async (trace) => {
          const options = this.#guardOptions(request.kind, trace, caller.signal);
          judgedUrl(request.url, options);
          asked = true;
          return this.#inTurn(request, tenant, options);
        }),
      () => asked,
    );
  }

  #guardOptions(kind: MediaKind, trace: FetchTrace, signal: AbortSignal): GuardOptions {
    const { domains, ports, plainHttp, redirects, refusedNetworks, timeoutMs, maxBytes, guard } = this.#options;
    return {
      hosts: [],
      domains,
      ports,
      plainPublic: plainHttp,
      redirects,
      refusedNetworks,
      deadlineMs: timeoutMs[kind],
      maxBytes: maxBytes[kind],
      maxUrlLength: MAX_URL,
      accept: ACCEPT[kind],
      trace,
      signal,
      ...guard,
    };
  }

  /** The deadline began when the request came, not when its turn did. */
  async #inTurn(request: MediaRequest, tenant: string, options: GuardOptions): Promise<Media> {
    const end = performance.now() + options.deadlineMs;
    const late = AbortSignal.timeout(options.deadlineMs);
    const signal = options.signal === undefined ? late : AbortSignal.any([late, options.signal]);
    const over = await this.#turns.take(tenant, signal).catch((error: unknown) => left(error, options.signal));
    try {
      const { cache } = this.#options;
      const place = { tenant, ...request };
      const kept = await cache?.get(place);
      if (kept !== undefined && options.trace !== undefined) options.trace.cached = true;
      if (kept !== undefined) return this.#verified(kept.bytes, request.kind, kept.type);
      const deadlineMs = Math.max(1, Math.ceil(end - performance.now()));
      const { status, type, body } = await guardedGet(request.url, { ...options, deadlineMs });
      if (status !== 200) throw new EgressEnd("content", `the server answers ${status}`);
      const media = this.#verified(body, request.kind, type);
      await cache?.put(place, media);
      return media;
    } finally {
      over();
    }
  }

  #verified(bytes: Buffer, kind: MediaKind, declared: string | undefined): Media {
    const media = verifyMedia(bytes, kind, declared, this.#options);
    if ("problem" in media) throw new EgressEnd("content", media.problem);
    return media;
  }

  /** What is kept goes, where it was for this start only. */
  async close(): Promise<void> {
    await this.#options.cache?.close();
    await this.#options.local?.close();
  }
}

/** Left the line. @throws EgressError | EgressEnd */
function left(error: unknown, callers: AbortSignal | undefined): never {
  if (error instanceof EgressEnd) throw error;
  if (callers?.aborted === true) throw new EgressError("aborted", "the request was stopped while it waited", error);
  throw new EgressError("timeout", "no turn came in time", error, 8);
}

/** @param asked whether anybody else had a say in it; without a word: yes */
async function outcomeOf(work: () => Promise<Media>, asked = (): boolean => true): Promise<MediaOutcome> {
  try {
    return { media: await work() };
  } catch (error) {
    if (error instanceof EgressEnd) return { refusal: refusal(error.outcome === "busy" ? "busy" : "unusable") };
    if (!(error instanceof EgressError)) throw error;
    if (error.code === "aborted") return { refusal: refusal("cancelled") };
    return { refusal: refusal(asked() ? "unusable" : "bad_url") };
  }
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
