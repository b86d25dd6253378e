/**
 * The server of a listener that speaks TLS. Loaded only where one does. Callers: listener.ts.
 */
import type { ServerOptions } from "node:http";
import type { Server } from "node:https";
import type { Socket } from "node:net";
import type { Connections, Lines } from "./_connections.ts";
import { cutWhenStill } from "./_half-closed.ts";
import { followMaterial } from "./_renewal.ts";
import type { HttpOptions } from "./options.ts";
import { type TlsSource, tlsOptions } from "./tls.ts";

const { createServer } = process.getBuiltinModule("node:https");

export interface TlsServer {
  readonly server: Server;
  /** Ends the watch over the material. */
  readonly stop: () => void;
  /** What has to be done with a connection that was let in. */
  readonly first: (socket: Socket) => void;
}

/** @param of begin: opens the line of a socket whose handshake is done */
export function createTls(
  tls: TlsSource,
  strict: ServerOptions,
  options: HttpOptions,
  { lines, connections, begin }: { lines: Lines; connections: Connections; begin: (socket: Socket) => void },
): TlsServer {
  const server = createServer({
    ...strict,
    ...tlsOptions(tls.material(), tls.clients),
    handshakeTimeout: options.handshakeTimeoutMs,
  });
  // Before Node's own listener, which would start to read requests.
  server.prependListener("secureConnection", (socket) => {
    connections.endHandshake(socket);
    // With "optional" Node lets everybody in: a certificate that does not verify is none, and a reason to end.
    if (tls.clients === "optional" && !socket.authorized && socket.getPeerX509Certificate() !== undefined) {
      socket.destroy();
      return;
    }
    cutWhenStill(socket);
    begin(socket);
  });
  return {
    server,
    stop: followMaterial(server, lines, connections, tls),
    first: (socket) => connections.beginHandshake(socket),
  };
}
