/**
 * Responses that are kept, and what is done with them: found, continued, streamed again, cancelled, deleted, and worked on
 * in the background; whatever answers their model.
 *
 * Invariants: what is stored is its tenant's, and another tenant's does not exist; without the scope `responses` nothing is
 * stored, read or continued; a background response goes on only once its id has left the server. Callers: responses.ts,
 * upstreams/responses.ts, routes.
 */
import { newId } from "#base/ids.ts";
import type { Log } from "#base/log.ts";
import type { CallEvent } from "#core/calls.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { Grant, Scope } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
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
import { replay } from "#wire/responses/replay.ts";
import { Background, type Job } from "./_background.ts";
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

export type Answered =
  | { readonly kind: "body"; readonly body: ResponseBody }
  | { readonly kind: "events"; readonly events: AsyncIterable<ResponseEvent> };

/** What a request says of keeping. */
export type Wishes = Pick<ResponseCall, "background"> & {
  readonly [N in "store" | "previousId"]?: ResponseCall[N] | undefined;
};

/** A response that is to be worked on in the background. */
export interface BackgroundTurn {
  readonly id: string;
  readonly writer: ResponseWriter;
  /** As it stands. */
  readonly ended: () => EndedResponse;
  /** The client is told the events as they come. */
  readonly stream: boolean;
  /**
   * The work is checked, and reserved; who draws on its events does it. It ends with the controller's signal.
   * @throws Fault
   */
  readonly begin: (controller: AbortController) => Promise<AsyncIterable<CallEvent>>;
}

/** How often a response of another server is looked at by who follows it. */
const LOOK_MS = 500;

export class StoredResponses {
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

  /**
   * Where a response is kept.
   * @returns undefined: this one is not. @throws Fault forbidden | invalid_request
   */
  storeFor({ principal, meter }: Grant<Scope>, { store: wanted, background, previousId }: Wishes) {
    const { store } = this.#options;
    // What asks for the store by name needs its scope; what would only be stored by default is not stored without.
    if (wanted === true || background || previousId !== undefined) authorize(principal, "responses", meter);
    if (background && (store === undefined || wanted === false))
      throw invalid("background", "background needs store, on a server that stores responses (--responses-store).");
    return wanted === false || !principal.scopes.has("responses") ? undefined : store;
  }

  /** The turn that a request continues. @throws Fault response_not_found, invalid_request: it cannot be */
  async earlier(grant: Grant<Scope>, id: string): Promise<KeptResponse> {
    const kept = await this.kept(grant, id, "previous_response_id");
    if (kept.status !== "completed" && kept.status !== "incomplete")
      throw invalid("previous_response_id", `The previous response is ${kept.status}: it cannot be continued.`);
    return kept;
  }

  /**
   * Wall: T50. What earlier turns add is held to what one request may bring.
   * @param count of messages, or items. @throws Fault invalid_request
   */
  requireSize({ principal }: Grant<Scope>, count: number, bytes: number): void {
    const caps = capsFor(this.#options.serving.caps, principal.caps);
    const long = (most: string) =>
      invalid("previous_response_id", `The turns of the conversation have more than ${most} together.`);
    if (count > caps.messages) throw long(`${caps.messages} messages`);
    if (bytes > caps.bodyBytes) throw long(`${caps.bodyBytes} bytes`);
  }

  /** @throws Fault response_not_found */
  async retrieve(grant: Grant<"responses">, id: string): Promise<ResponseBody> {
    return printKept(await this.kept(grant, id));
  }

  /** Wall: T50. Of its tenant, and of a model that the principal may use: what another model said does not exist for it. */
  async kept({ principal }: Grant<Scope>, id: string, param?: string): Promise<KeptResponse> {
    const { serving, store } = this.#options;
    const kept = await store?.get(principal.tenant, id);
    if (kept === undefined || !serving.models.mayKnow(String(kept.body["model"]), principal)) throw notFound(id, param);
    return kept;
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
    const kept = await this.kept(grant, id);
    if (kept.body["background"] !== true)
      throw invalid("stream", "Only a response that was created with background can be streamed again.");
    const run = this.#background?.find(grant.principal.tenant, id);
    return run?.follow(after, signal) ?? this.#replayed(grant, kept, after, signal);
  }

  /** @throws Fault response_not_found, invalid_request: it has ended */
  async cancel(grant: Grant<"responses">, id: string): Promise<ResponseBody> {
    const { tenant } = grant.principal;
    const kept = await this.kept(grant, id);
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
    await this.kept(grant, id);
    if ((await this.#options.store?.remove(tenant, id)) !== true) throw notFound(id);
    this.#background?.find(tenant, id)?.cancel();
  }

  /** Answers now, and goes on. @param signal of the request. @throws Fault as `begin` does, and for want of a place */
  async goOn(
    { principal: { tenant } }: Grant<Scope>,
    store: ResponseStore | undefined,
    { id, writer, ended, stream, begin }: BackgroundTurn,
    signal: AbortSignal,
  ): Promise<Answered> {
    if (store === undefined || this.#background === undefined) throw new Error("a background response has a store");
    const leave = this.#background.take(tenant);
    const controller = new AbortController();
    try {
      // Before the store makes room for it: what has no right to run costs nobody what was stored.
      const events = await begin(controller);
      await store.begin(tenant, ended()).catch(async (error) => {
        await unwanted(events, controller);
        throw error;
      });
      const job: Job = { tenant, id, writer, finish: () => store.finish(tenant, ended()) };
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
      throw error;
    }
  }

  /** Background responses may go on for so long; then they fail. */
  async close(graceMs: number): Promise<void> {
    await this.#background?.close(graceMs);
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
      kept = await this.kept(grant, first.id);
    }
    for (const event of replay(kept, this.#options.reasoningEvents)) if (event.sequence_number > after) yield event;
  }
}

/** Random: who does not know it does not guess it. */
export function newResponseId(): string {
  return `resp_${newId()}`;
}

/** Whether there is an answer that the next turn can follow. */
export function isWhole({ status }: Pick<KeptResponse, "status">): boolean {
  return status === "completed" || status === "incomplete";
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

function notFound(id: string, param = "response_id"): Fault {
  return new Fault("response_not_found", `Response with id '${id.slice(0, 200)}' not found.`, { param });
}
