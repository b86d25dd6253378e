/**
 * A connection to one place, in clear or over TLS, or the reason why there is none by its time.
 *
 * Node's own `net` and `tls`: the connector of undici comes with all of that library, 1.2 MB of source that a gateway
 * has no other use for. Invariants: `done` is called once; a socket whose connection failed or came too late is
 * destroyed; errors of a socket are heard as long as it is there, whoever has it. Private to dial.ts.
 */
import { connect as connectPlain, type OnReadOpts, type Socket } from "node:net";
import { type ConnectionOptions, connect as connectTls } from "node:tls";

export interface Place {
  /** A name or an address without brackets. */
  readonly host: string;
  readonly port: number;
  /** In place of them, and what they are called in a certificate all the same. */
  readonly socketPath: string | undefined;
  /** Over TLS, with these; undefined: in clear. */
  readonly tls: ConnectionOptions | undefined;
  readonly timeoutMs: number;
}

/** The silence behind which the kernel asks whether the other side is still there. */
const KEEP_ALIVE_MS = 60_000;

/** @param onread where what it receives is read to; undefined: as streams are */
export function connectTo(
  place: Place,
  onread: OnReadOpts | undefined,
  done: (error: Error | undefined, socket: Socket | undefined) => void,
): void {
  const { host, port, socketPath, tls, timeoutMs } = place;
  const where = socketPath === undefined ? { host, port } : { host, port, path: socketPath };
  const options = { ...where, ...(onread === undefined ? {} : { onread }) };
  const socket =
    tls === undefined ? connectPlain(options) : connectTls({ ...options, ...tls, ALPNProtocols: ["http/1.1"] });
  const over = (error: Error | undefined): void => {
    clearTimeout(timer);
    socket.off("error", over);
    socket.off(event, connected);
    if (error !== undefined) socket.destroy();
    done(error, error === undefined ? socket : undefined);
  };
  const connected = (): void => over(undefined);
  const event = tls === undefined ? "connect" : "secureConnect";
  const timer = setTimeout(() => over(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  socket.setNoDelay(true);
  // One that nobody hears would end the process: whoever has the socket next may not listen yet, or no more.
  socket.on("error", () => {});
  socket.on("error", over);
  socket.on(event, connected);
}
