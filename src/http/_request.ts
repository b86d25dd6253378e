/**
 * A request of which no more is made than the corridor looks at: its headers stay a list, but for those that frame it,
 * and its body goes from Node's parser to whoever takes it, without a stream's queue, events and turns between.
 *
 * Why: a small body is one piece that comes with the head, and what a stream does for it costs more than reading it.
 * Until somebody takes the body it is a stream as any other, which holds no more than its mark. Invariant: a sink that
 * wants no more gets no more, and the connection is not read meanwhile. Callers: listener.ts makes the server with it,
 * _body.ts takes bodies.
 */

/** Not imported, as in listener.ts. */
const { IncomingMessage } = process.getBuiltinModule("node:http");

export interface BodySink {
  /** @returns whether it wants more. Never throws */
  take(chunk: Buffer): boolean;
  /** The body is whole. Never throws */
  end(): void;
}

const FRAMING = ["content-length", "transfer-encoding", "expect", "upgrade", "te"] as const;

/**
 * The headers by which a message is framed and taken, where Node's server and the corridor ask by name. Everything else
 * is read from `rawHeaders` (base/headers.ts). Of those that stand twice the values are joined, as Node does; a second
 * Content-Length its parser refuses. (For Host it asks only where it is to require one, which listener.ts does itself.)
 */
export class Framing implements Record<(typeof FRAMING)[number], string | undefined> {
  "content-length": string | undefined = undefined;
  "transfer-encoding": string | undefined = undefined;
  expect: string | undefined = undefined;
  upgrade: string | undefined = undefined;
  te: string | undefined = undefined;

  constructor(rawHeaders: readonly string[]) {
    for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
      const given = rawHeaders[at] as string;
      for (const name of FRAMING)
        if (given.length === name.length && given.toLowerCase() === name) this.#add(name, rawHeaders[at + 1] as string);
    }
  }

  #add(name: (typeof FRAMING)[number], value: string): void {
    const before = this[name];
    this[name] = before === undefined ? value : `${before}, ${value}`;
  }
}

export class Request extends IncomingMessage {
  #sink: BodySink | undefined;
  #ended = false;
  #framing: Framing | undefined;

  // What their types call properties, which no class could override, are accessors in truth.
  static {
    const headers = function (this: Request): unknown {
      this.#framing ??= new Framing(this.rawHeaders);
      return this.#framing;
    };
    // Node's server asks, to let go of a request that is over.
    const readableEnded = function (this: Request): unknown {
      return this.#ended || Reflect.get(IncomingMessage.prototype, "readableEnded", this);
    };
    Object.defineProperty(Request.prototype, "headers", { get: headers, configurable: true });
    Object.defineProperty(Request.prototype, "readableEnded", { get: readableEnded, configurable: true });
  }

  /** @returns false: something has come already, so it has to be read as a stream */
  divert(sink: BodySink): boolean {
    if (this.complete || this.readableLength > 0) return false;
    this.#sink = sink;
    // As for any reader: Node's server drops the body of a request that nobody reads.
    this.read(0);
    return true;
  }

  /** What Node's parser calls. */
  override push(chunk: Buffer | null): boolean {
    const sink = this.#sink;
    if (sink === undefined) return super.push(chunk);
    if (chunk !== null) return sink.take(chunk);
    this.#ended = true;
    sink.end();
    return false;
  }
}
