/**
 * A WebSocket to an upstream: a connection of its own, dialed as every other one, and the handshake on it.
 *
 * Invariants (Wall: T120, T121): what the dial looks at holds here, too (certificates, where a name leads); no redirect
 * is followed, no extension taken; of the client's handshake nothing goes on: Host, the key and the id are ours.
 * Loaded where somebody asks for one. Callers: client.ts.
 */
import { WebSocket } from "ws";
import { Channel, type ChannelOptions } from "#base/channel.ts";
import { Fault } from "#core/fault.ts";
import type { Dial } from "./dial.ts";
import { UpstreamFault, upstreamFault } from "./fault.ts";

export interface UpstreamChannelOptions extends ChannelOptions {
  /** As a declared route spells it. */
  readonly target: string;
  /** Name and value in turn. */
  readonly headers: readonly string[];
  /** Bytes of a message at most. */
  readonly messageBytes: number;
  /** Until it is open, connecting included. */
  readonly openMs: number;
  /** Aborted with a Fault, while it opens: that is what the caller gets. */
  readonly signal?: AbortSignal;
}

/** What a server without the route says; 403: what vLLM's framework says of a WebSocket where there is none. */
const ABSENT: ReadonlySet<number> = new Set([403, 404, 405, 501]);

/** @param host of the request @throws UpstreamFault; Fault not_implemented: it has no such channel; the signal's reason */
export function openUpstreamChannel(dial: Dial, host: string, options: UpstreamChannelOptions): Promise<Channel> {
  return new Promise((resolve, reject) => {
    const { signal } = options;
    let socket: WebSocket | undefined;
    let over = false;
    const end = (fault: Fault): void => {
      if (over) return;
      over = true;
      clearTimeout(late);
      signal?.removeEventListener("abort", aborted);
      socket?.terminate();
      reject(fault);
    };
    const aborted = (): void => {
      const reason: unknown = signal?.reason;
      end(reason instanceof Fault ? reason : new UpstreamFault("cancelled", { sent: false }));
    };
    const late = setTimeout(() => end(new UpstreamFault("timeout", { sent: false })), options.openMs);
    signal?.addEventListener("abort", aborted, { once: true });
    if (signal?.aborted === true) return aborted();
    dial(undefined, (error, carrier) => {
      if (carrier === undefined) return end(upstreamFault(error, false));
      if (over) return void carrier.destroy();
      carrier.setNoDelay(true);
      socket = new WebSocket(`ws://${host}${options.target}`, {
        createConnection: () => carrier,
        followRedirects: false,
        perMessageDeflate: false,
        maxPayload: options.messageBytes,
        headers: headersOf(options.headers),
      });
      socket.once("error", (failed) => end(upstreamFault(failed, true)));
      socket.once("unexpected-response", (_request, { statusCode = 0 }) => end(refusal(statusCode)));
      socket.once("open", () => {
        if (over || socket === undefined) return;
        over = true;
        clearTimeout(late);
        signal?.removeEventListener("abort", aborted);
        resolve(new Channel(socket, options));
      });
    });
  });
}

function refusal(status: number): Fault {
  const detail = `status ${status}`;
  if (ABSENT.has(status)) return new Fault("not_implemented", "The model does not take streams of speech.", { detail });
  if (status === 401 || status === 407) return new UpstreamFault("denied", { sent: true, detail });
  return new UpstreamFault(status === 429 ? "busy" : status === 503 ? "down" : "broken", { sent: true, detail });
}

function headersOf(flat: readonly string[]): Record<string, string> {
  const headers: Record<string, string> = {};
  for (let at = 0; at < flat.length; at += 2) headers[flat[at] ?? ""] = flat[at + 1] ?? "";
  return headers;
}
