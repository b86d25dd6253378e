/**
 * The Responses API of models behind others: a turn is sent to one of their servers as if it were the first, and kept,
 * continued and worked on in the background here.
 *
 * Invariants: an upstream is asked for nothing but a whole conversation, which it does not keep (Wall: T130); the id, and
 * whether it is kept, are this server's in every event; what a client has seen the end of is in the store; what is not
 * kept is passed on as it comes. Called by the relay that app gives to http.
 */
import { newId } from "#base/ids.ts";
import { type JsonValue, parseJson, stringifyJson } from "#base/json.ts";
import { cutsOf, spliced } from "#base/splice.ts";
import { conform } from "#core/conform.ts";
import { Fault } from "#core/fault.ts";
import { capsFor } from "#core/request-caps.ts";
import type { EndedResponse, ResponseBody, ResponseStatus, ResponseStore } from "#core/responses.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { Serving } from "#serving/context.ts";
import { type Answered, isWhole, type StoredResponses } from "#serving/stored-responses.ts";
import { refuseServerTools } from "#wire/relay/client-tools.ts";
import { editsOf, type RelayVerdict } from "#wire/relay/judge.ts";
import { responseOf } from "#wire/relay/response-answer.ts";
import { RELAY_RULES } from "#wire/relay/rules.ts";
import { beginBody } from "#wire/responses/body.ts";
import { answerItems, countItems, inputItems, itemsOf, joinItems } from "#wire/responses/conversation.ts";
import { decodeEcho } from "#wire/responses/decode.ts";
import { ResponsesBody } from "#wire/responses/schema.ts";
import { Writer } from "#wire/responses/writer.ts";
import { heldSource, refusalOf, responseEvents, wholeOf } from "./_drawn.ts";
import { JsonWork } from "./_work.ts";
import type { ForwardCall, Forwarded, Forwarding } from "./forwarding.ts";

export interface RelayedResponsesOptions {
  readonly serving: Serving;
  readonly forwarding: Forwarding;
  readonly stored: StoredResponses;
}

const RULE = RELAY_RULES["/v1/responses"];
/** What an upstream refuses within this time a background response's client is told; later it is in the response. */
const REFUSED_MS = 1000;
/** Of an answer, which is held while it is read. */
const MAX_BYTES = 64 * 1024 * 1024;

/** A turn that an upstream answers. */
interface Turn {
  readonly call: ForwardCall;
  /** Of the call upstream. */
  readonly id: string;
  readonly responseId: string;
  readonly verdict: RelayVerdict;
  /** As it is printed. */
  readonly model: string;
  readonly store: ResponseStore | undefined;
  /** Where it is kept: all that was said before the answer. */
  readonly items: string;
}

export class RelayedResponses {
  readonly #options: RelayedResponsesOptions;

  constructor(options: RelayedResponsesOptions) {
    this.#options = options;
  }

  /** @returns undefined: the model runs here. @throws Fault as forwarding does, response_not_found, forbidden */
  async create(call: ForwardCall): Promise<Forwarded | Answered | undefined> {
    const { forwarding, stored } = this.#options;
    const id = newId();
    const verdict = forwarding.judge(RULE, call, id);
    const served = forwarding.elsewhere(verdict.model, call.grant);
    if (served === undefined) return undefined;
    refuseServerTools(verdict);
    const store = stored.storeFor(call.grant, verdict.kept);
    const model = verdict.model ?? served.names[0];
    const turn: Turn = { call, id, responseId: `resp_${id}`, verdict, model, store, items: "[]" };
    const { background, previousId } = verdict.kept;
    if (store === undefined && previousId === undefined) return this.#answer(turn);
    const own = inputItems(textOf(verdict, "input") ?? "[]");
    const asked = previousId === undefined ? { ...turn, items: own } : await this.#continued(turn, previousId, own);
    return background ? this.#goOn(asked) : this.#answer(asked);
  }

  /** The same request with the turns before in it, judged anew: every bound holds for all of it. */
  async #continued(turn: Turn, previousId: string, own: string): Promise<Turn> {
    const { forwarding, stored } = this.#options;
    const { grant, body } = turn.call;
    const items = joinItems(itemsOf(await stored.earlier(grant, previousId)), own);
    stored.requireSize(grant, countItems(items), Buffer.byteLength(items));
    const edits = new Map([
      ["input", items],
      ["previous_response_id", undefined],
    ]);
    const whole = Buffer.concat(spliced(body, cutsOf(turn.verdict.scan, edits)));
    const { kept } = turn.verdict;
    const verdict = forwarding.judge(RULE, { grant, body: whole }, turn.id);
    return { ...turn, items, verdict: { ...verdict, kept } };
  }

  async #answer(turn: Turn): Promise<Forwarded | undefined> {
    const { call, id, responseId, verdict, store } = turn;
    const { previousId } = verdict.kept;
    const fields = {
      id: responseId,
      ...(store === undefined ? {} : { store: true }),
      ...(previousId === undefined ? {} : { previous_response_id: previousId }),
    };
    const keep =
      store === undefined ? undefined : (bytes: Uint8Array | undefined) => this.#keep(turn, store, fields, bytes);
    const response = { fields, ...(keep === undefined ? {} : { keep }) };
    const work = new JsonWork(verdict, id, { maxBytes: MAX_BYTES, response });
    const forwarded = await this.#options.forwarding.carry(call, work);
    if (forwarded === undefined || forwarded.stream) return forwarded;
    const { status, headers, source } = forwarded.answer;
    const body = await wholeOf(source);
    if (status < 300) await keep?.(body);
    const length = { "content-length": String(body.length) };
    return { answer: { status, headers: { ...headers, ...length }, source: heldSource(body) }, stream: false };
  }

  /** One that failed is not kept, as of those that are answered here. @throws Fault it is none, or cannot be kept */
  async #keep(
    { call, responseId: id, model, items }: Turn,
    store: ResponseStore,
    fields: Readonly<Record<string, JsonValue>>,
    bytes: Uint8Array | undefined,
  ): Promise<void> {
    const said = responseOf(bytes);
    if (said === undefined) throw new UpstreamFault("protocol", { sent: true, detail: "it is no response" });
    const status = said["status"] as ResponseStatus;
    if (!isWhole({ status })) return;
    const body = { ...said, ...fields, model };
    await store.put(call.grant.principal.tenant, { id, status, body, messages: [], items: answered(items, body) });
  }

  #goOn(turn: Turn): Promise<Answered> {
    const { call, responseId: id, store, verdict } = turn;
    const writer = this.#writer(turn);
    const ended = (): EndedResponse => endedAs(turn, writer);
    const { stream } = verdict;
    return this.#options.stored.goOn(
      call.grant,
      store,
      { id, writer, ended, stream, begin: (controller) => this.#begin(turn, controller) },
      call.signal,
    );
  }

  /** Prints the answer as it prints one of the engine here. */
  #writer({ call: { grant, body }, responseId: id, model, verdict }: Turn): Writer {
    const { serving, stored } = this.#options;
    const caps = capsFor(serving.caps, grant.principal.caps);
    const echo = decodeEcho(conform(ResponsesBody, parseJson(body)), caps);
    const created = Math.floor(Date.now() / 1000);
    const begin = { id, created, model, temperature: 1, topP: 1, stored: true };
    const head = beginBody({ ...begin }, { ...echo, previous_response_id: verdict.kept.previousId ?? null });
    const { reasoningEvents } = stored;
    return new Writer(head, { cachedTokens: true, tokensAsIds: false, reasoningEvents, logs: true });
  }

  /** Resolves when the work is reserved, and the upstream has begun or not refused it at once. */
  async #begin({ call, id, verdict, model }: Turn, controller: AbortController) {
    const left = (): void => controller.abort(call.signal.reason);
    const sent = Promise.withResolvers<void>();
    const streamed = { ...verdict, edits: new Map([...editsOf(verdict), ["stream", "true"] as const]) };
    // It is written behind the reservation.
    const work = new JsonWork(streamed, id, { maxBytes: MAX_BYTES, onWrite: () => sent.resolve() });
    const away = { ...call, signal: controller.signal, onAbort: undefined };
    const answer = this.#options.forwarding.carry(away, work).then(begunWith);
    answer.catch(() => {});
    call.signal.addEventListener("abort", left, { once: true });
    try {
      if (call.signal.aborted) left();
      await Promise.race([answer, sent.promise.then(() => soon(REFUSED_MS))]);
    } finally {
      call.signal.removeEventListener("abort", left);
    }
    return drawn(answer, model);
  }
}

async function* drawn(answer: Promise<Forwarded>, model: string) {
  const { answer: begun } = await answer;
  yield* responseEvents(begun.source, model);
}

/** @throws Fault it is no stream of events */
async function begunWith(forwarded: Forwarded | undefined): Promise<Forwarded> {
  if (forwarded === undefined) throw new Fault("internal", "Internal server error.", { detail: "the model is gone" });
  const { answer, stream } = forwarded;
  if (answer.status >= 400) throw await refusalOf(answer.source);
  if (stream) return forwarded;
  answer.source.cancel();
  throw new UpstreamFault("protocol", { sent: true, detail: "a stream was asked for" });
}

function soon(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds).unref());
}

function endedAs({ responseId: id, items }: Turn, writer: Writer): EndedResponse {
  const { status } = writer;
  const [body, log] = [writer.body(), writer.log()];
  return {
    ...{ id, status, body, messages: [] },
    items: isWhole(writer) ? answered(items, body) : items,
    ...(log.length === 0 ? {} : { log }),
  };
}

/** The conversation with its answer. */
function answered(items: string, { output }: ResponseBody): string {
  return joinItems(items, stringifyJson(answerItems(output)));
}

/** The JSON text of a field. */
function textOf({ body, scan }: RelayVerdict, field: string): string | undefined {
  const member = scan.members.find(({ name }) => name === field);
  return member === undefined
    ? undefined
    : Buffer.from(body.buffer, body.byteOffset).toString("utf8", member.start, member.end);
}
