/**
 * The answer that is a WebSocket: the handshake's 101, and the channel until whoever serves it is done.
 *
 * Invariants (Wall: T131): the corridor has said yes and the call's record is written before the 101; no extension is
 * taken (compressed frames cost what nobody sees in their size); a message is bounded while its frames arrive; the
 * connection ends with the channel. Loaded where there is one. Private to the pipeline.
 */
import type { IncomingMessage } from "node:http";
import type { WebSocket } from "ws";
import { WebSocketServer } from "ws";
import { Channel, ChannelError, CLOSED } from "#base/channel.ts";
import { headerValues } from "#base/headers.ts";
import { Fault } from "#core/fault.ts";
import type { Exchange } from "./_exchange.ts";
import type { OwnHeaders } from "./_head.ts";
import { nodesOwn } from "./_message.ts";
import { type Upgrade, upgradeOf } from "./_upgrade.ts";
import type { Reply } from "./reply.ts";

const PING_MS = 20_000;
/** A side that does not answer the closing of a channel. */
const FAREWELL_MS = 2000;
const KEY = /^[+/0-9A-Za-z]{22}==$/;

/**
 * Answers 101 and lets the channel be served to its end.
 * @throws Fault: it is no handshake; what ended the channel
 */
export async function writeChannel(
  exchange: Exchange,
  { serve, messageBytes }: Extract<Reply, { kind: "channel" }>,
  before: () => Promise<OwnHeaders>,
): Promise<void> {
  const upgrade = handshakeOf(nodesOwn(exchange.req, exchange.res).req);
  const own = await before();
  const socket = await accept(exchange, upgrade, own, messageBytes);
  const channel = new Channel(socket, {
    stallMs: exchange.options.stallTimeoutMs,
    pingMs: PING_MS,
    seen: (from, text) => exchange.said(from === "them" ? "request" : "answer", text),
  });
  try {
    await exchange.handled(
      serve(channel),
      () => undefined,
      () => {},
    );
    channel.close(CLOSED.normal);
  } catch (error) {
    // The library has told the client which rule it broke.
    if (error instanceof ChannelError)
      throw new Fault("invalid_request", "No WebSocket of text.", { detail: error.message });
    channel.close(codeOf(error), error instanceof Fault ? error.message : "");
    throw error;
  } finally {
    const late = exchange.counters.after(FAREWELL_MS, () => channel.cut());
    await channel.ended;
    late.end();
  }
}

/** @throws Fault: in HTTP, as nothing has been answered yet */
function handshakeOf(req: IncomingMessage): Upgrade {
  const upgrade = upgradeOf(req);
  if (upgrade === undefined)
    throw new Fault("invalid_request", "This path is a WebSocket: ask for an upgrade, by GET and HTTP/1.1.");
  if (headerValues(req.rawHeaders, "sec-websocket-version").join() !== "13")
    throw new Fault("invalid_request", "Sec-WebSocket-Version must be 13.");
  if (!KEY.test(headerValues(req.rawHeaders, "sec-websocket-key").join()))
    throw new Fault("invalid_request", "Sec-WebSocket-Key is not one.");
  return upgrade;
}

function accept(
  exchange: Exchange,
  { socket, head }: Upgrade,
  own: OwnHeaders,
  maxPayload: number,
): Promise<WebSocket> {
  const { requestId } = exchange;
  const { req, res } = nodesOwn(exchange.req, exchange.res);
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload,
    // Browsers offer it, and close where nothing of theirs is chosen.
    handleProtocols: (offered) => (offered.has("realtime") ? "realtime" : false),
  });
  const headers = exchange.options.requestIdHeader ? { ...own, "x-request-id": requestId } : own;
  server.on("headers", (lines) => {
    for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  });
  return new Promise((resolve, reject) => {
    server.once("wsClientError", (error) => reject(new Fault("invalid_request", `No handshake: ${error.message}.`)));
    exchange.switched = true;
    res.detachSocket(req.socket);
    server.handleUpgrade(seenByLibrary(req), socket, head, resolve);
    // The client went away meanwhile: no socket will come.
    socket.once("close", () => reject(new Fault("cancelled", "The client went away.")));
  });
}

/** What the library reads of a request, whose headers are a list here (_request.ts). */
function seenByLibrary({ method, url, rawHeaders }: IncomingMessage): IncomingMessage {
  const names = ["upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol"];
  const given = names.map((name) => [name, headerValues(rawHeaders, name)] as const);
  const headers = Object.fromEntries(
    given.flatMap(([name, values]) => (values.length > 0 ? [[name, values.join(", ")]] : [])),
  );
  return { method, url, headers } as unknown as IncomingMessage;
}

function codeOf(error: unknown): number {
  if (!(error instanceof Fault)) return CLOSED.internal;
  if (error.kind === "draining" || error.kind === "request_timeout") return CLOSED.goingAway;
  return error.kind.startsWith("upstream") || error.kind === "internal" ? CLOSED.internal : CLOSED.policy;
}
