/**
 * The Responses API over chat: a turn that may continue a stored one, be stored, and go on in the background.
 *
 * Invariants: what is stored is its tenant's, and another tenant's does not exist; what a client has seen the end of
 * is in the store; without the scope `responses` nothing is stored, read or continued. Callers: routes; app makes the
 * value.
 */
import { randomUUID } from "node:crypto";
import { stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import type { CallEvent, ChatCall, SamplingInput } from "#core/calls.ts";
import type { ChatMessage } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor, type RequestCaps } from "#core/request-caps.ts";
import type {
  EndedResponse,
  KeptResponse,
  ResponseBody,
  ResponseCall,
  ResponseEvent,
  ResponseStore,
  ResponseWriter,
} from "#core/responses.ts";
import { authorize } from "#policy/authorize.ts";
import { printKept } from "#wire/responses/body.ts";
import { errorOf, tell } from "#wire/responses/dialect.ts";
import { replay } from "#wire/responses/replay.ts";
import { Background, type Job } from "./_background.ts";
import { reserved } from "./_metered.ts";
import { chat, prepareChat } from "./chat.ts";
import type { Serving } from "./context.ts";

export interface ResponsesOptions {
  readonly serving: Serving;
  /** Undefined: this server keeps no responses. */
  readonly store: ResponseStore | undefined;
  readonly background: { readonly most: number; readonly mostOfTenant: number; readonly timeoutMs: number };
  /** In whose words reasoning is streamed. */
  readonly reasoningEvents: "openai" | "vllm";
  readonly log: Log;
}

/** What the server decides about a response before it begins. */
export interface Begun {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  /** Served name. */
  readonly model: string;
  readonly defaults: SamplingInput;
  readonly stored: boolean;
}

export interface Asked {
  readonly call: ResponseCall;
  readonly writer: (begun: Begun) => ResponseWriter;
}

export type Answered =
  | { readonly kind: "body"; readonly body: ResponseBody }
  | { readonly kind: "events"; readonly events: AsyncIterable<ResponseEvent> };

/** How often a response of another server is looked at by who follows it. */
const LOOK_MS = 500;

/** A turn, ready to run. */
interface Turn {
  readonly chat: ChatCall;
  readonly id: string;
  readonly writer: ResponseWriter;
  /** Everything before the answer, without instructions. */
  readonly conversation: readonly ChatMessage[];
  readonly store: ResponseStore | undefined;
}

export class Responses {
  readonly #options: ResponsesOptions;
  readonly #background: Background | undefined;

  constructor(options: ResponsesOptions) {
    const { store, background, log } = options;
    this.#options = options;
    this.#background = store === undefined ? undefined : new Background({ store, ...background, log });
  }

  get reasoningEvents(): ResponsesOptions["reasoningEvents"] {
    return this.#options.reasoningEvents;
  }

  /** @throws Fault as chat does, response_not_found, forbidden */
  async create(grant: Grant<"inference">, asked: Asked, signal: AbortSignal): Promise<Answered> {
    const { call } = asked;
    const turn = await this.#turn(grant, asked);
    if (call.background) return this.#goOn(grant, turn, call.stream, signal);
    const events = this.#answer(grant, turn, signal);
    if (call.stream) return { kind: "events", events };
    for await (const _ of events);
    return { kind: "body", body: turn.writer.body() };
  }

  /** @throws Fault response_not_found */
  async retrieve(grant: Grant<"responses">, id: string): Promise<ResponseBody> {
    return printKept(await this.#kept(grant, id));
  }

  /** For its input. @throws Fault response_not_found */
  kept(grant: Grant<"responses">, id: string): Promise<KeptResponse> {
    return this.#kept(grant, id);
  }

  /**
   * The stream of a background response again, and what is still to come of it.
   * @param after the sequence number of the last event that is not wanted; -1: all are
   * @throws Fault response_not_found
   */
  async follow(
    grant: Grant<"responses">,
    id: string,
    after: number,
    signal: AbortSignal,
  ): Promise<AsyncIterable<ResponseEvent>> {
    const kept = await this.#kept(grant, id);
    if (kept.body["background"] !== true)
      throw invalid("stream", "Only a response that was created with background can be streamed again.");
    const run = this.#background?.find(grant.principal.tenant, id);
    return run?.follow(after, signal) ?? this.#replayed(grant, kept, after, signal);
  }

  /** @throws Fault response_not_found, invalid_request: it has ended */
  async cancel(grant: Grant<"responses">, id: string): Promise<ResponseBody> {
    const { tenant } = grant.principal;
    const kept = await this.#kept(grant, id);
    const cancelled = await this.#options.store?.cancel(tenant, id);
    if (cancelled !== true)
      throw new Fault(
        "invalid_request",
        kept.body["background"] === true
          ? "Cannot cancel a response that has ended."
          : "Cannot cancel a synchronous response.",
        { param: "response_id" },
      );
    this.#background?.find(tenant, id)?.cancel();
    return printKept({ ...kept, status: "cancelled" });
  }

  /** A background response that is on its way ends. @throws Fault response_not_found */
  async remove(grant: Grant<"responses">, id: string): Promise<void> {
    const { tenant } = grant.principal;
    await this.#kept(grant, id);
    if ((await this.#options.store?.remove(tenant, id)) !== true) throw notFound(id);
    this.#background?.find(tenant, id)?.cancel();
  }

  /** Background responses may go on for so long; then they fail. */
  async close(graceMs: number): Promise<void> {
    await this.#background?.close(graceMs);
  }

  async #turn(grant: Grant<"inference">, { call, writer: make }: Asked): Promise<Turn> {
    const { serving } = this.#options;
    const store = this.#storeFor(grant, call);
    const model = serving.models.resolve(call.chat.model, grant.principal);
    const earlier = call.previousId === undefined ? [] : await this.#earlier(grant, call.previousId);
    const conversation = [...earlier, ...call.chat.messages];
    if (earlier.length > 0) requireSize(conversation, capsFor(serving.caps, grant.principal.caps));
    const id = `resp_${randomUUID().replaceAll("-", "")}`;
    const created = Math.floor(Date.now() / 1000);
    const instructions: ChatMessage[] =
      call.instructions === undefined ? [] : [{ role: "system", content: call.instructions }];
    return {
      id,
      conversation,
      store,
      chat: {
        ...call.chat,
        messages: [...instructions, ...conversation],
        output: { ...call.chat.output, callId: id },
      },
      writer: make({ id, created, model: model.names[0], defaults: model.defaults, stored: store !== undefined }),
    };
  }

  /** @returns undefined: this response is not stored. @throws Fault forbidden | invalid_request */
  #storeFor(
    grant: Grant<"inference">,
    { store: wanted, background, previousId }: ResponseCall,
  ): ResponseStore | undefined {
    const { store } = this.#options;
    // What asks for the store by name needs its scope; what would only be stored by default is not stored without.
    if (wanted === true || background || previousId !== undefined) authorize(grant.principal, "responses", grant.meter);
    if (background && (store === undefined || wanted === false))
      throw invalid("background", "background needs store, on a server that stores responses (--responses-store).");
    return wanted === false || !grant.principal.scopes.has("responses") ? undefined : store;
  }

  async #earlier(grant: Grant<"inference">, id: string): Promise<readonly ChatMessage[]> {
    const kept = await this.#kept(grant, id, "previous_response_id");
    if (kept.status !== "completed" && kept.status !== "incomplete")
      throw invalid("previous_response_id", `The previous response is ${kept.status}: it cannot be continued.`);
    return kept.messages;
  }

  async *#answer(grant: Grant<"inference">, turn: Turn, signal: AbortSignal): AsyncGenerator<ResponseEvent> {
    const { writer, store } = turn;
    let begun = false;
    try {
      for await (const event of chat(grant, this.#options.serving, turn.chat, signal)) {
        if (!begun) yield* writer.begin();
        begun = true;
        const events = writer.push(event);
        if (event.type === "usage" && event.final) await store?.put(grant.principal.tenant, ended(turn));
        yield* events;
      }
    } catch (error) {
      const last = begun && !signal.aborted ? writer.stop("failed", errorOf(error)) : [];
      if (last.length > 0) tell(error);
      yield* last;
      throw renamed(error);
    }
  }

  async #goOn(grant: Grant<"inference">, turn: Turn, stream: boolean, signal: AbortSignal): Promise<Answered> {
    const { writer, store, id } = turn;
    const { tenant } = grant.principal;
    if (store === undefined || this.#background === undefined) throw new Error("a background response has a store");
    const leave = this.#background.take(tenant);
    const controller = new AbortController();
    try {
      const work = await prepareChat(grant, this.#options.serving, turn.chat);
      signal.throwIfAborted();
      // Before the store makes room for it: what has no right to run costs nobody what was stored.
      const events = await reserved(work, controller.signal);
      await store.begin(tenant, ended(turn)).catch(async (error) => {
        await unwanted(events, controller);
        throw error;
      });
      const job: Job = { tenant, id, writer, finish: () => store.finish(tenant, ended(turn)) };
      const body = writer.body();
      const run = this.#background.start(job, events, controller, leave);
      const told = unlessTold(signal, () => {
        run.cancel();
        // What cannot be removed now stays as cancelled.
        store.remove(tenant, id).catch(() => {});
      });
      return stream ? { kind: "events", events: tells(run.follow(-1, signal), told) } : { kind: "body", body };
    } catch (error) {
      leave();
      throw renamed(error);
    }
  }

  async *#replayed(
    grant: Grant<"responses">,
    first: KeptResponse,
    after: number,
    signal: AbortSignal,
  ): AsyncGenerator<ResponseEvent> {
    let kept = first;
    // Another server works on it: its events come when it is over.
    while (kept.status === "queued" || kept.status === "in_progress") {
      await new Promise((done) => setTimeout(done, LOOK_MS));
      if (signal.aborted) return;
      kept = await this.#kept(grant, first.id);
    }
    for (const event of replay(kept, this.#options.reasoningEvents)) if (event.sequence_number > after) yield event;
  }

  /** Wall: T50. Of its tenant, and of a model that the principal may use: what another model said does not exist for it. */
  async #kept({ principal }: Grant<"inference" | "responses">, id: string, param?: string): Promise<KeptResponse> {
    const { serving, store } = this.#options;
    const kept = await store?.get(principal.tenant, id);
    if (kept === undefined || !serving.models.mayKnow(String(kept.body["model"]), principal)) throw notFound(id, param);
    return kept;
  }
}

function ended({ id, writer, conversation }: Turn): EndedResponse {
  const { status } = writer;
  const whole = status === "completed" || status === "incomplete";
  const log = writer.log();
  return {
    id,
    status,
    body: writer.body(),
    messages: whole ? [...conversation, ...writer.answer()] : conversation,
    ...(log.length === 0 ? {} : { log }),
  };
}

/** Draws to its end what shall not be done: only that gives its reservation back. */
async function unwanted(events: AsyncIterable<CallEvent>, controller: AbortController): Promise<void> {
  controller.abort();
  try {
    for await (const _ of events);
  } catch {
    // It was cancelled.
  }
}

/**
 * A background response outlives its request from where its id has left the server: before, nobody could ever ask for it.
 * @param signal fires when the answer does not leave. @returns says that the id has left
 */
function unlessTold(signal: AbortSignal, forget: () => void): () => void {
  if (signal.aborted) forget();
  else signal.addEventListener("abort", forget, { once: true });
  return () => signal.removeEventListener("abort", forget);
}

/** The first event has the id; it has left when the next one is wanted. */
async function* tells(events: AsyncIterable<ResponseEvent>, told: () => void): AsyncGenerator<ResponseEvent> {
  for await (const event of events) {
    yield event;
    told();
  }
}

/** Wall: T50. What earlier turns add is held to what one request may bring. @throws Fault invalid_request */
function requireSize(conversation: readonly ChatMessage[], { messages, bodyBytes }: RequestCaps): void {
  const long = (most: string) =>
    invalid("previous_response_id", `The turns of the conversation have more than ${most} together.`);
  if (conversation.length > messages) throw long(`${messages} messages`);
  if (Buffer.byteLength(stringifyJson(conversation)) > bodyBytes) throw long(`${bodyBytes} bytes`);
}

function notFound(id: string, param = "response_id"): Fault {
  return new Fault("response_not_found", `Response with id '${id.slice(0, 200)}' not found.`, { param });
}

const FIELDS: Readonly<Record<string, string>> = { messages: "input", max_tokens: "max_output_tokens" };

/** Serving names the fields of a chat; the client wrote others. */
function renamed(error: unknown): unknown {
  if (!(error instanceof Fault) || error.param === undefined) return error;
  const [first = "", ...rest] = error.param.split(".");
  const own = FIELDS[first];
  if (own === undefined) return error;
  const { kind, message, detail, retryAfterMs, cause } = error;
  return new Fault(kind, message, {
    param: [own, ...rest].join("."),
    ...(detail === undefined ? {} : { detail }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(cause === undefined ? {} : { cause }),
  });
}
