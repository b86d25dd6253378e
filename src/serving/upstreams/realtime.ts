/**
 * A session of streaming transcription that a server behind this one answers (`/v1/realtime`).
 *
 * The session's first `session.update` names the model; from then on it has a WebSocket of its own to one of that
 * model's servers. Invariants (Wall: T131): no text of a client's goes on, only events written anew; speech is reserved by the slice
 * before it goes on, and what a transcription used is booked before its end is told; who has lost its key begins nothing
 * more; whatever ends the session ends the upstream's channel and settles what is reserved. vLLM queues speech without a
 * bound: who is further ahead of the clock than the cap of a file is cut off. Called by the relay that app gives to http.
 */

import { type Channel, ChannelError } from "#base/channel.ts";
import { newId } from "#base/ids.ts";
import type { Usage } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { NO_USAGE, type Reservation } from "#core/metering.ts";
import type { Grant, Scope } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import { isOurs } from "#serving/_metered.ts";
import type { Serving } from "#serving/context.ts";
import { countedAs, type ServedModel } from "#serving/models.ts";
import {
  BYTES_PER_SECOND,
  type ClientEvent,
  type RealtimeCode,
  RealtimeError,
  readClientEvent,
  readServerEvent,
  writtenCreated,
  writtenError,
  writtenUpdate,
} from "#wire/relay/realtime.ts";
import { AUDIO_TOKENS_PER_SECOND } from "#wire/relay/usage.ts";
import type { PooledChannel } from "./_channel-try.ts";
import type { ModelUpstreams } from "./forwarding.ts";

export interface RealtimeOptions {
  readonly serving: Serving;
  /** Undefined: this server computes it itself. */
  readonly upstreamsOf: (model: ServedModel) => ModelUpstreams | undefined;
  /** Milliseconds; the tests' own. */
  readonly idleMs?: number;
  readonly now?: () => number;
}

export interface RealtimeCall {
  readonly path: string;
  readonly grant: Grant<Scope>;
  /** Whether the caller would be let in again. */
  readonly stillMay: () => Promise<boolean>;
}

/** Of a message, either way: a hundred seconds of speech. */
export const MESSAGE_BYTES = 4 * 1024 * 1024;
const MIB = 1024 * 1024;
const IDLE_MS = 300_000;
const OPEN_MS = 30_000;
const PING_MS = 20_000;
const STALL_MS = 60_000;
/** Speech is reserved by so many seconds at once. */
const SLICE_SECONDS = 30;
/** Tokens of an answer to a second of speech, at most: models of this kind say something every 80 ms. */
const SAID_PER_SECOND = 16;

/** Serves a client's channel to its end. @throws Fault what ended it, if that was not the client */
export function serveRealtime(options: RealtimeOptions, call: RealtimeCall, client: Channel): Promise<void> {
  return new Session(options, call, client).run();
}

class Session {
  readonly #options: RealtimeOptions;
  readonly #call: RealtimeCall;
  readonly #client: Channel;
  readonly #now: () => number;
  #model: ServedModel | undefined;
  #upstream: PooledChannel | undefined;
  #reservations: Reservation[] = [];
  /** A transcription is under way. */
  #running = false;
  /** Bytes of speech since the last end, and how many of them are reserved. */
  #heard = 0;
  #reserved = 0;
  /** Deltas since then. */
  #said = 0;
  #since: number;
  #lastAt: number;

  constructor(options: RealtimeOptions, call: RealtimeCall, client: Channel) {
    this.#options = options;
    this.#call = call;
    this.#client = client;
    this.#now = options.now ?? (() => performance.now());
    this.#since = this.#now();
    this.#lastAt = this.#since;
  }

  async run(): Promise<void> {
    const { idleMs = IDLE_MS } = this.#options;
    const idle = setInterval(() => this.#look(idleMs), Math.ceil(idleMs / 10));
    let fault: unknown;
    try {
      await this.#client.send(writtenCreated(newId(), Math.floor(Date.now() / 1000)));
      for (let text = await this.#client.receive(); text !== undefined; text = await this.#client.receive()) {
        this.#lastAt = this.#now();
        await this.#take(text);
      }
    } catch (error) {
      fault = error;
      if (error instanceof Fault) await this.#tell(codeOf(error), error.message);
      throw error;
    } finally {
      clearInterval(idle);
      this.#upstream?.end(fault instanceof UpstreamFault ? fault : undefined);
      this.#upstream?.channel.close(1000);
      // What was not told the end of costs what is known of it; what a server's fault cut short costs nothing.
      await this.#settle(fault !== undefined && isOurs(fault) ? NO_USAGE : this.#guess());
    }
  }

  async #take(text: string): Promise<void> {
    try {
      await this.#do(readClientEvent(text));
    } catch (error) {
      // The client may do better.
      if (!(error instanceof RealtimeError)) throw error;
      await this.#tell(error.code, error.message);
    }
  }

  #do(event: ClientEvent): Promise<void> {
    switch (event.type) {
      case "update":
        return this.#update(event.model);
      case "append":
        return this.#append(event);
      case "commit":
        return this.#commit(event);
    }
  }

  async #update(name: string): Promise<void> {
    const { serving, upstreamsOf } = this.#options;
    const { principal } = this.#call.grant;
    const model = found(() => serving.models.resolve(name, principal));
    if (this.#upstream !== undefined && model !== this.#model)
      throw new RealtimeError("invalid_event", "The session has its model already: open another one.");
    const upstreams = upstreamsOf(model);
    if (upstreams === undefined) throw new RealtimeError("not_supported", "The model does not take streams of speech.");
    this.#model = model;
    this.#upstream ??= await this.#open(upstreams, model);
    await this.#upstream.channel.send(writtenUpdate(upstreams.name ?? name));
  }

  async #open({ pool }: ModelUpstreams, model: ServedModel): Promise<PooledChannel> {
    const { path, grant } = this.#call;
    const { tokens } = estimate(SLICE_SECONDS);
    const headers = ["x-request-id", newId()];
    const gone = new AbortController();
    void this.#client.ended.then(() => gone.abort(new Fault("cancelled", "The client went away.")));
    const upstream = await pool.channel(
      {
        ...{ target: path, headers, messageBytes: MESSAGE_BYTES, openMs: OPEN_MS },
        ...{ pingMs: PING_MS, stallMs: STALL_MS, signal: gone.signal },
      },
      {
        ...{ tokens, share: this.#options.serving.shareOf(grant.principal), idempotent: true, signal: gone.signal },
        ...(model.lora === undefined ? {} : { adapter: model.names[0] }),
      },
    );
    // What ends the upstream's side ends the session.
    void this.#listen(upstream).catch((error: Error) => this.#client.interrupt(error));
    return upstream;
  }

  async #append({ bytes, written }: Extract<ClientEvent, { type: "append" }>): Promise<void> {
    const upstream = this.#chosen();
    const { audioMegabytes } = capsFor(this.#options.serving.caps, this.#call.grant.principal.caps);
    const elapsed = this.#running ? (this.#now() - this.#since) / 1000 : 0;
    if (this.#heard + bytes - elapsed * BYTES_PER_SECOND > audioMegabytes * MIB)
      throw new Fault("payload_too_large", `More than ${audioMegabytes} MiB of speech wait to be heard.`);
    this.#heard += bytes;
    if (this.#running) await this.#reserve();
    await upstream.channel.send(written);
  }

  /** Not the last one begins a transcription, as vLLM has it; the last says that no more speech comes. */
  async #commit({ final, written }: Extract<ClientEvent, { type: "commit" }>): Promise<void> {
    const upstream = this.#chosen();
    if (!final && !this.#running) {
      if (!(await this.#call.stillMay())) throw new Fault("unauthenticated", "The key is not valid any more.");
      this.#running = true;
      this.#since = this.#now();
      await this.#reserve();
    }
    await upstream.channel.send(written);
  }

  #chosen(): PooledChannel {
    if (this.#upstream !== undefined) return this.#upstream;
    throw new RealtimeError("model_not_validated", "Name the model first, by session.update.");
  }

  /** What has come and is not reserved, and the slice after it. @throws Fault rate_limited */
  async #reserve(): Promise<void> {
    if (this.#model === undefined || (this.#reserved > 0 && this.#heard <= this.#reserved)) return;
    const slices = Math.floor((this.#heard - this.#reserved) / (SLICE_SECONDS * BYTES_PER_SECOND)) + 1;
    const { promptTokens, completionTokens } = estimate(slices * SLICE_SECONDS);
    const work = { model: countedAs(this.#model), promptTokens, completionTokens, sequences: 1 };
    this.#reservations.push(await this.#call.grant.meter.reserve(work));
    this.#reserved += slices * SLICE_SECONDS * BYTES_PER_SECOND;
  }

  async #listen({ channel }: PooledChannel): Promise<void> {
    for (;;) {
      const text = await received(channel);
      this.#lastAt = this.#now();
      const event = readServerEvent(text);
      if (event === undefined) throw new UpstreamFault("protocol", { sent: true, detail: "no event" });
      if (event.type === "other") continue;
      if (event.type === "delta") this.#said++;
      if (event.type === "done") await this.#settle(event.usage ?? this.#guess());
      await this.#client.send(text);
    }
  }

  /** The transcription is over, or will never be. */
  async #settle(used: Usage): Promise<void> {
    const reservations = this.#reservations;
    this.#reservations = [];
    const { heard } = this.#reset();
    const [first, ...more] = reservations;
    // An end of what was never begun has nothing to book.
    if (first === undefined) return;
    const nothing = heard === 0 && used.completionTokens === 0;
    await Promise.all([
      first.settle(nothing ? NO_USAGE : used).catch(() => {}),
      ...more.map((each) => each.settle(NO_USAGE).catch(() => {})),
    ]);
  }

  #reset(): { readonly heard: number } {
    const heard = this.#heard;
    this.#running = false;
    this.#heard = 0;
    this.#reserved = 0;
    this.#said = 0;
    return { heard };
  }

  #guess(): Usage {
    const promptTokens = Math.ceil((this.#heard / BYTES_PER_SECOND) * AUDIO_TOKENS_PER_SECOND);
    return { ...NO_USAGE, promptTokens, completionTokens: this.#said };
  }

  #look(idleMs: number): void {
    if (this.#now() - this.#lastAt >= idleMs)
      this.#client.interrupt(new Fault("request_timeout", "Nothing was said for too long."));
  }

  #tell(code: RealtimeCode, message: string): Promise<void> {
    return this.#client.send(writtenError(code, message));
  }
}

function estimate(seconds: number) {
  const promptTokens = seconds * AUDIO_TOKENS_PER_SECOND;
  const completionTokens = seconds * SAID_PER_SECOND;
  return { promptTokens, completionTokens, tokens: promptTokens + completionTokens };
}

/** @throws UpstreamFault: it closed, or made no sense */
async function received(channel: Channel): Promise<string> {
  try {
    const text = await channel.receive();
    if (text !== undefined) return text;
  } catch (error) {
    if (!(error instanceof ChannelError)) throw error;
    throw new UpstreamFault("protocol", { sent: true, detail: error.message });
  }
  throw new UpstreamFault("reset", { sent: true, detail: "it closed the channel" });
}

/** A name that is not served is the client's to mend. */
function found(resolve: () => ServedModel): ServedModel {
  try {
    return resolve();
  } catch (error) {
    if (error instanceof Fault && error.kind === "model_not_found")
      throw new RealtimeError("model_not_found", error.message);
    throw error;
  }
}

function codeOf({ kind }: Fault): RealtimeCode {
  if (kind === "rate_limited" || kind === "overloaded") return "rate_limit_exceeded";
  if (kind === "payload_too_large") return "invalid_audio";
  return kind === "not_implemented" ? "not_supported" : "processing_error";
}
