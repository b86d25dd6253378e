/**
 * A request whose body goes from Node's parser to whoever takes it, without a stream's queue, events and turns between.
 *
 * Why: a small body is one piece that comes with the head, and what a stream does for it costs more than reading it.
 * Until somebody takes the body it is a stream as any other, which holds no more than its mark. Invariant: a sink that
 * wants no more gets no more, and the connection is not read meanwhile. Callers: listener.ts makes the server with it,
 * _body.ts takes bodies.
 */
/** As in listener.ts. */
const { IncomingMessage } = process.getBuiltinModule("node:http");

export interface BodySink {
  /** @returns whether it wants more. Never throws */
  take(chunk: Buffer): boolean;
  /** The body is whole. Never throws */
  end(): void;
}

export class Request extends IncomingMessage {
  #sink: BodySink | undefined;
  #ended = false;

  static {
    // Node's server asks, to let go of a request that is over. Its type calls it a property, which none could override.
    const get = function (this: Request): unknown {
      return this.#ended || Reflect.get(IncomingMessage.prototype, "readableEnded", this);
    };
    Object.defineProperty(Request.prototype, "readableEnded", { get, configurable: true });
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
