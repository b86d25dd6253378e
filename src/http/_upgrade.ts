/**
 * Requests that ask for a WebSocket: which those are, and what they are answered through.
 *
 * Invariants (Wall: T131): until the corridor has said yes such a request is an HTTP request like any other, answered in
 * HTTP, and its connection ends with that answer; what came behind a request that is refused is never read, neither as
 * frames nor as requests. Node lets go of the connection before it tells, so it is asked for an upgrade only where the
 * route has one: everywhere else the header means nothing. Callers: listener.ts, _channel.ts.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";

const { ServerResponse: Response } = process.getBuiltinModule("node:http");

export interface Upgrade {
  readonly socket: Duplex;
  /** What came behind the head. */
  readonly head: Buffer;
}

const upgrades = new WeakMap<IncomingMessage, Upgrade>();

/** RFC 6455, 4.2.1, as far as it tells a WebSocket from other upgrades. */
export function asksForChannel({ method, headers }: IncomingMessage): boolean {
  return method === "GET" && headers.upgrade?.toLowerCase() === "websocket";
}

/** @returns the response of a request that Node has let go of */
export function responseTo(req: IncomingMessage, socket: Duplex, head: Buffer): ServerResponse {
  upgrades.set(req, { socket, head });
  const res = new Response(req);
  res.shouldKeepAlive = false;
  res.assignSocket(req.socket);
  // Without Node's own listeners nobody else would: its end closes the response.
  req.socket.on("error", () => req.socket.destroy());
  res.once("finish", () => req.socket.destroySoon());
  return res;
}

/** Undefined: Node still has its connection, and no channel can be made of it. */
export function upgradeOf(req: IncomingMessage): Upgrade | undefined {
  return upgrades.get(req);
}
