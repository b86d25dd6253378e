/**
 * The Responses API over chat: a turn that may continue a stored one, be stored, and go on in the background.
 *
 * Invariants: those of stored-responses.ts, and: what a client has seen the end of is in the store. Callers: routes; app
 * makes the value.
 */
import { stringifyJson } from "#base/json.ts";
import type { ChatCall, SamplingInput } from "#core/calls.ts";
import type { ChatMessage } from "#core/chat.ts";
import { Fault } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import type { EndedResponse, ResponseCall, ResponseEvent, ResponseStore, ResponseWriter } from "#core/responses.ts";
import { messagesOf } from "#wire/responses/conversation.ts";
import { errorOf, tell } from "#wire/responses/dialect.ts";
import { reserved } from "./_metered.ts";
import { chat, prepareChat } from "./chat.ts";
import { type Answered, isWhole, newResponseId, type ResponsesOptions, StoredResponses } from "./stored-responses.ts";

export type { Answered, ResponsesOptions } from "./stored-responses.ts";

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
  /** Those that are kept, of models that others answer, too. */
  readonly stored: StoredResponses;

  constructor(options: ResponsesOptions) {
    this.#options = options;
    this.stored = new StoredResponses(options);
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

  async #turn(grant: Grant<"inference">, { call, writer: make }: Asked): Promise<Turn> {
    const { serving } = this.#options;
    const store = this.stored.storeFor(grant, call);
    const model = serving.models.resolve(call.chat.model, grant.principal);
    const earlier = call.previousId === undefined ? [] : await this.#earlier(grant, call.previousId);
    const conversation = [...earlier, ...call.chat.messages];
    if (earlier.length > 0)
      this.stored.requireSize(grant, conversation.length, Buffer.byteLength(stringifyJson(conversation)));
    const id = newResponseId();
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

  async #earlier(grant: Grant<"inference">, id: string): Promise<readonly ChatMessage[]> {
    return messagesOf(await this.stored.earlier(grant, id), capsFor(this.#options.serving.caps, grant.principal.caps));
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
    const { id, writer, store } = turn;
    const begin = async (controller: AbortController) => {
      const work = await prepareChat(grant, this.#options.serving, turn.chat);
      signal.throwIfAborted();
      return reserved(work, controller.signal);
    };
    try {
      return await this.stored.goOn(grant, store, { id, writer, ended: () => ended(turn), stream, begin }, signal);
    } catch (error) {
      throw renamed(error);
    }
  }
}

function ended({ id, writer, conversation }: Turn): EndedResponse {
  const { status } = writer;
  const log = writer.log();
  return {
    id,
    status,
    body: writer.body(),
    messages: isWhole(writer) ? [...conversation, ...writer.answer()] : conversation,
    ...(log.length === 0 ? {} : { log }),
  };
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
