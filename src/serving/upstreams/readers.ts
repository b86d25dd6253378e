/**
 * What an upstream's answer used, read as it passes: of a stream event by event, of a whole answer when it is there.
 * Made by forwarding.ts, one an answer.
 */
import type { Usage } from "#core/calls.ts";
import type { Fault } from "#core/fault.ts";
import { NO_USAGE } from "#core/metering.ts";
import { failedEvent } from "#wire/relay/response-answer.ts";
import { type Shown, StreamReader, withShown } from "#wire/relay/stream.ts";
import { isJson, scanned, usageIn } from "#wire/relay/usage.ts";
import { errorOf } from "#wire/responses/dialect.ts";
import type { UsageReader } from "./settled-source.ts";

export interface Expected {
  /** Tokens of the prompt, about: what counts where the upstream does not say. */
  readonly promptTokens: number;
  /** Usage was asked for on the server's account. */
  readonly strip: boolean;
  /** What stands in the answer whatever the upstream wrote. */
  readonly shown?: Shown;
  /** The response that the answer is, or ends with, is kept. */
  readonly keeps?: boolean;
}

/**
 * A stream that the client cut short is charged for what it had told, and a token for each event since; one that says
 * that it failed costs nothing, as an answer that fails here does.
 */
export class StreamUsage extends StreamReader implements UsageReader {
  readonly #promptTokens: number;
  readonly #shown: Shown | undefined;

  constructor({ promptTokens, ...options }: Expected) {
    super(options);
    this.#promptTokens = promptTokens;
    this.#shown = options.shown;
  }

  lastWords(fault: Fault): string | undefined {
    const { first, events, ended, failed } = this;
    if (first === undefined || ended || failed) return undefined;
    return failedEvent(first, this.#shown?.edits ?? new Map(), events, errorOf(fault));
  }

  get complete(): boolean {
    return this.ended;
  }

  get broken(): boolean {
    return !this.ended && !this.failed;
  }

  used(): Usage {
    const { usage, events, since, failed, ended } = this;
    if (failed) return NO_USAGE;
    if (usage === undefined) return { ...NO_USAGE, promptTokens: this.#promptTokens, completionTokens: events };
    return ended ? usage : { ...usage, completionTokens: usage.completionTokens + since };
  }
}

/** Longer answers (of many embeddings, say) are charged by what was expected. */
const MAX_READ = 32 * 1024 * 1024;

export interface WholeHead {
  readonly good: boolean;
  readonly json: boolean;
  readonly length: number | undefined;
}

const NOTHING: Uint8Array[] = [];

export class WholeUsage implements UsageReader {
  readonly #expected: Expected;
  /** Of the answer's head; undefined: it did not say. */
  readonly #length: number | undefined;
  /** 2xx; another costs nothing. */
  readonly #good: boolean;
  /** It says that it is JSON. */
  readonly #json: boolean;
  #pieces = NOTHING;
  #bytes = 0;
  #used: Usage | undefined;
  complete = false;
  /** That one is shorter than it says the connection tells; that it says to be shorter than it is, its text. */
  broken = false;

  constructor(expected: Expected, { good, json, length }: WholeHead) {
    this.#expected = expected;
    this.#good = good;
    this.#json = json;
    this.#length = length;
  }

  take(chunk: Uint8Array): readonly Uint8Array[] {
    this.#bytes += chunk.length;
    const last = this.#bytes === this.#length;
    const { shown } = this.#expected;
    if (last && this.#pieces.length === 0) {
      this.#read(chunk);
      return shown === undefined ? [chunk] : this.#shown(chunk, shown);
    }
    if (this.#bytes <= MAX_READ || shown !== undefined) this.#keep(chunk);
    if (last) this.#whole();
    if (shown === undefined) return [chunk];
    return last ? this.#shown(Buffer.concat(this.#pieces), shown) : [];
  }

  end(): readonly Uint8Array[] {
    if (this.complete) return [];
    this.#whole();
    const { shown } = this.#expected;
    return shown === undefined ? [] : this.#shown(Buffer.concat(this.#pieces), shown);
  }

  used(): Usage {
    if (!this.#good) return NO_USAGE;
    if (this.#used !== undefined) return this.#used;
    return { ...NO_USAGE, promptTokens: this.#expected.promptTokens };
  }

  #keep(chunk: Uint8Array): void {
    if (this.#pieces === NOTHING) this.#pieces = [];
    this.#pieces.push(Buffer.from(chunk));
  }

  #whole(): void {
    this.#read(Buffer.concat(this.#pieces));
    if (this.#expected.shown === undefined) this.#pieces = NOTHING;
  }

  #read(body: Uint8Array): void {
    this.complete = true;
    if (!this.#good || this.#bytes > MAX_READ) return;
    const scan = scanned(body);
    this.broken = this.#json && scan === undefined && !isJson(body);
    this.#used = scan === undefined ? undefined : usageIn(body, scan);
  }

  #shown(body: Uint8Array, shown: Shown): readonly Uint8Array[] {
    const scan = this.#good ? scanned(body) : undefined;
    return (scan === undefined ? undefined : withShown(body, scan, shown)) ?? [body];
  }
}
