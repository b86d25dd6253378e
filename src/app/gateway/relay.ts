/**
 * The relay of a server with upstreams: which declared routes others answer, and how. Made by gateway/compose.ts, called
 * by http's corridor.
 */
import { z } from "zod";
import type { Channel } from "#base/channel.ts";
import { newId } from "#base/ids.ts";
import { parseJson, stringifyJson } from "#base/json.ts";
import { conform } from "#core/conform.ts";
import { Fault } from "#core/fault.ts";
import { type Grant, OPERATOR_TENANT, type Scope } from "#core/principal.ts";
import { readable } from "#core/readable.ts";
import type { Relay, RelayAnswer, RelayRequest } from "#http/relay.ts";
import { empty, events, json, type Reply, relay as relayed, text } from "#http/reply.ts";
import type { AnyRoute } from "#http/route.ts";
import { requireOperator } from "#policy/authorize.ts";
import type { Services } from "#routes/index.ts";
import { invocationRoute } from "#routes/invocations.ts";
import type { UpstreamAdapters } from "#serving/upstreams/adapters.ts";
import type { ForwardCall, Forwarded, Forwarding } from "#serving/upstreams/forwarding.ts";
import type { Operate } from "#serving/upstreams/operate.ts";
import { MESSAGE_BYTES, type RealtimeOptions, serveRealtime } from "#serving/upstreams/realtime.ts";
import {
  AUDIO_ROUTES,
  MODEL_ROUTES,
  OPERATIONS,
  type Operation,
  READ_BACK_ROUTES,
} from "#serving/upstreams/relayed-routes.ts";
import type { RelayedResponses } from "#serving/upstreams/responses.ts";
import type { UpstreamScrape } from "#serving/upstreams/scrape.ts";
import { invokedOf } from "#wire/relay/invoked.ts";
import { responseFrames } from "#wire/responses/frames.ts";
import { decodeLoadLora, decodeUnloadLora, LoadLoraBody, UnloadLoraBody } from "#wire/vllm/lora.ts";
import { AbortBody, decodeAbort } from "#wire/vllm/operations.ts";

export interface GatewayRelayParts {
  readonly forwarding: Forwarding;
  readonly responses: RelayedResponses;
  readonly realtime: RealtimeOptions;
  readonly operate: Operate;
  readonly adapters: UpstreamAdapters;
  readonly scrape: Pick<UpstreamScrape, "text">;
  /** Nothing is computed in this process. */
  readonly alone: boolean;
}

const NO_BODY = Buffer.alloc(0);
const JSON_OBJECT = z.record(z.string(), z.unknown());
const ABORT = "/abort_requests";
const RESPONSES = "/v1/responses";
const LOAD_LORA = "/v1/load_lora_adapter";
const UNLOAD_LORA = "/v1/unload_lora_adapter";
const METRICS = "/metrics/upstreams";
const REALTIME = "/v1/realtime";

export function gatewayRelay(parts: GatewayRelayParts): Relay<Services> {
  const { forwarding, responses, realtime, operate, adapters, scrape, alone } = parts;
  const forwarders = forwardersOf(forwarding, responses);
  /** A tenant ends its own calls; the operator's tenant everybody's. */
  const abort = async ({ caller, body = NO_BODY, signal }: RelayRequest<Services>): Promise<Reply> => {
    const ids = decodeAbort(conform(AbortBody, parsed(body))).map((id) =>
      id.slice(Math.max(id.lastIndexOf("-"), id.lastIndexOf("_")) + 1),
    );
    const { tenant } = caller.principal;
    const open = forwarding.among(ids);
    const own = tenant === OPERATOR_TENANT ? open : open.filter((each) => each.tenant === tenant);
    const told = { request_ids: own.map(({ id }) => id) };
    if (own.length > 0) await send("POST", ABORT, told, { joined: "every" }, signal);
    return empty();
  };
  const send = (method: string, target: string, body: unknown, operation: Operation, signal: AbortSignal) => {
    const type = body === undefined ? [] : ["content-type", "application/json"];
    const headers = [...type, "x-request-id", newId()];
    const bytes = body === undefined ? [] : [Buffer.from(stringifyJson(body))];
    return operate.run({ method, target, headers, body: bytes }, operation, signal);
  };
  const run = async (request: RelayRequest<Services>): Promise<Reply> => {
    const { route, caller, body, query, signal } = request;
    const operation = OPERATIONS.get(keyOf(route));
    if (operation === undefined) throw new Fault("not_implemented", "The servers behind this one are not asked that.");
    // The servers are every tenant's.
    requireOperator(caller.principal);
    const target = query === "" ? route.path : `${route.path}?${query}`;
    const told = body === undefined ? undefined : operationBody(route, body, operation);
    const { status, body: answer } = await send(route.method, target, told, operation, signal);
    return answer === undefined ? empty(status) : json(answer, status);
  };
  return {
    wants: (route) =>
      ["/invocations", LOAD_LORA, UNLOAD_LORA, METRICS, REALTIME].includes(route.path) ||
      forwarders.has(route.path) ||
      (alone && isOperation(route)),
    answer: (request) => {
      const { route, body } = request;
      if (route.path === "/invocations" && request.askedBy === undefined)
        return { kind: "forward", to: invocationRoute(invokedOf(body ?? NO_BODY)) };
      const forward = forwarders.get(route.path);
      if (forward !== undefined) return forward(new Call(request));
      if (route.path === LOAD_LORA) return loadLora(adapters, request, alone);
      if (route.path === UNLOAD_LORA) return unloadLora(adapters, request, alone);
      if (route.path === METRICS) return metrics(scrape);
      if (route.path === REALTIME) return session(realtime, request);
      return route.path === ABORT ? abort(request) : run(request);
    },
  };
}

type Forward = (call: ForwardCall) => Promise<Reply | undefined>;

/** What is carried to a model's server, by path. */
function forwardersOf(forwarding: Forwarding, responses: RelayedResponses): ReadonlyMap<string, Forward> {
  const forwarders = new Map<string, Forward>();
  for (const [path, rule] of MODEL_ROUTES) forwarders.set(path, (call) => forwarding.forward(rule, call).then(passed));
  for (const path of AUDIO_ROUTES) forwarders.set(path, (call) => forwarding.forwardAudio(call).then(passed));
  for (const [path, field] of READ_BACK_ROUTES)
    forwarders.set(path, (call) => forwarding.forwardDerender(field, call).then(passed));
  return forwarders.set(RESPONSES, (call) => responses.create(call).then(created));
}

function passed(found: Forwarded | undefined): Reply | undefined {
  return found === undefined ? undefined : relayed(found.answer, found.stream);
}

function created(found: Awaited<ReturnType<RelayedResponses["create"]>>): Reply | undefined {
  if (found === undefined || "answer" in found) return passed(found);
  return found.kind === "events" ? events(responseFrames(found.events)) : json(found.body);
}

/** A request as forwarding knows it. Its signal is made for who asks. */
class Call implements ForwardCall {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly grant: Grant<Scope>;
  readonly body: Buffer;
  readonly contentType: string | undefined;
  readonly requestId: string;
  readonly #request: RelayRequest<Services>;

  constructor(request: RelayRequest<Services>) {
    this.method = request.route.method;
    this.path = request.route.path;
    this.query = request.query;
    this.grant = request.caller;
    this.body = request.body ?? NO_BODY;
    this.contentType = request.contentType;
    this.requestId = request.requestId;
    this.#request = request;
  }

  get signal(): AbortSignal {
    return this.#request.signal;
  }

  onAbort(run: (reason: Fault) => void): void {
    this.#request.onAbort(run);
  }

  /** A response may be kept with what was asked, or still be written when its call is over. */
  spent(): void {
    if (this.path !== RESPONSES) this.#request.spent();
  }
}

/** A grant and what is reserved under it are the session's, as long as it lasts. */
function session(options: RealtimeOptions, request: Asked): Reply {
  const { route, caller } = request;
  const call = { path: route.path, grant: caller, stillMay: () => request.stillMay() };
  const serve = (client: Channel) => serveRealtime(options, call, client);
  return { kind: "channel", messageBytes: MESSAGE_BYTES, serve };
}

async function metrics(scrape: GatewayRelayParts["scrape"]): Promise<Reply> {
  return text(await scrape.text(), "text/plain; version=0.0.4; charset=utf-8");
}

type Asked = RelayRequest<Services>;

async function loadLora(
  adapters: UpstreamAdapters,
  { caller, body, signal }: Asked,
  alone: boolean,
): Promise<RelayAnswer<Services>> {
  const call = decodeLoadLora(conform(LoadLoraBody, parsed(body ?? NO_BODY)));
  const target = adapters.target(call.base, alone);
  if (target === undefined) return undefined;
  await adapters.load(target, caller.principal, call, signal);
  return text(`Success: LoRA adapter '${call.name}' added successfully.`);
}

async function unloadLora(
  adapters: UpstreamAdapters,
  { caller, body, signal }: Asked,
  alone: boolean,
): Promise<RelayAnswer<Services>> {
  const name = decodeUnloadLora(conform(UnloadLoraBody, parsed(body ?? NO_BODY)));
  const holder = adapters.holder(name);
  if (holder === undefined && !alone) return undefined;
  if (holder === undefined)
    throw new Fault("model_not_found", "The lora adapter cannot be found.", { param: "lora_name" });
  await adapters.unload(holder, caller.principal, name, signal);
  return text(`Success: LoRA adapter '${name}' removed successfully.`);
}

/** Read strictly and written anew, so that it is one value for whoever reads it. @throws Fault */
function operationBody(route: AnyRoute<Services>, body: Buffer, { vllms, written }: Operation): unknown {
  const value = parsed(body);
  if (written !== undefined) return written(value);
  const schema = vllms ? JSON_OBJECT : route.body;
  if (schema !== undefined) conform(schema, value);
  return value;
}

function keyOf(route: AnyRoute<Services>): string {
  return `${route.method} ${route.path}`;
}

/** Of the operations listener, and not of this server itself. */
function isOperation(route: AnyRoute<Services>): boolean {
  return OPERATIONS.has(keyOf(route)) || route.path === ABORT;
}

function parsed(body: Buffer): unknown {
  return readable("character", () => parseJson(body));
}
