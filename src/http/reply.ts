/**
 * What a handler answers: data, not calls on a response object.
 */
import type { Channel } from "#base/channel.ts";
import type { RelaySource, UpstreamAnswer } from "#core/relay.ts";

export type Reply =
  | {
      readonly kind: "json";
      readonly body: unknown;
      readonly status?: number;
      readonly headers?: Readonly<Record<string, string>>;
    }
  | { readonly kind: "text"; readonly body: string; readonly contentType: string; readonly status?: number }
  | {
      readonly kind: "bytes";
      readonly body: Uint8Array;
      readonly contentType: string;
      readonly headers?: Readonly<Record<string, string>>;
    }
  /** Bytes of a known number that are read while they are sent; what fails in the middle cuts the connection. */
  | { readonly kind: "stream"; readonly pieces: AsyncIterable<Uint8Array>; readonly length: number }
  | { readonly kind: "empty"; readonly status?: number }
  /**
   * Server-sent events: complete frames (`data: …\n\n`). The pipeline pulls the first frame before it writes the
   * head, so a failure until then still has its real status; later ones become `dialect.streamFault`.
   */
  | { readonly kind: "events"; readonly frames: AsyncIterable<string> }
  /** A WebSocket, of a route that declares one: messages of `messageBytes` at most, until `serve` resolves. */
  | { readonly kind: "channel"; readonly messageBytes: number; readonly serve: (channel: Channel) => Promise<void> }
  /** What another server answers, passed on as it comes. */
  | {
      readonly kind: "relay";
      readonly status: number;
      /** Lower case. A content-length is held against what comes. */
      readonly headers: Readonly<Record<string, string>>;
      readonly source: RelaySource;
      /** Server-sent events: what fails after the first becomes `dialect.streamFault`. Otherwise it cuts the connection. */
      readonly stream: boolean;
    };

export function json(body: unknown, status = 200): Reply {
  return { kind: "json", body, status };
}

export function text(body: string, contentType = "text/plain; charset=utf-8"): Reply {
  return { kind: "text", body, contentType };
}

/** JSON that is text already. */
export function jsonText(body: string): Reply {
  return text(body, "application/json");
}

export function bytes(body: Uint8Array, headers: Readonly<Record<string, string>> = {}): Reply {
  return { kind: "bytes", body, contentType: "application/octet-stream", headers };
}

export function stream(pieces: AsyncIterable<Uint8Array>, length: number): Reply {
  return { kind: "stream", pieces, length };
}

export function empty(status = 200): Reply {
  return { kind: "empty", status };
}

export function events(frames: AsyncIterable<string>): Reply {
  return { kind: "events", frames };
}

/** @param stream whether it is a stream of events */
export function relay({ status, headers, source }: UpstreamAnswer, stream: boolean): Reply {
  return { kind: "relay", status, headers, source, stream };
}
