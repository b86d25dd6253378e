/**
 * A small HTTP client for a castellan server: what `chat`, `bench` and the first answer use. It dials the one origin
 * that the operator named (or a Unix socket), follows no redirect and sends its key nowhere else.
 */
import { Pool } from "undici";
import { parseJson } from "#base/json.ts";
import type { Secret } from "#base/secret.ts";

export interface ClientOptions {
  /** http(s)://host:port */
  readonly origin: string;
  readonly socketPath?: string;
  readonly key?: Secret;
  /** Connections at once. */
  readonly connections?: number;
  readonly tls?: ClientTls;
}

/** PEM, all of it. */
export interface ClientTls {
  /** Authorities instead of those that come with Node. */
  readonly authorities?: string;
  /** The one certificate that may answer, under any name. */
  readonly pinned?: string;
  /** What the client shows of itself. */
  readonly certificate?: string;
  readonly key?: Secret;
}

/** The server answered with a failure, or not at all; the message is for people. */
export class ClientError extends Error {
  readonly status: number | undefined;
  constructor(message: string, status?: number) {
    super(message);
    this.name = "ClientError";
    this.status = status;
  }
}

const MAX_ANSWER_BYTES = 64 << 20;

export class LocalClient {
  private readonly pool: Pool;
  private readonly headers: Record<string, string>;

  constructor(options: ClientOptions) {
    this.pool = new Pool(options.origin, {
      connections: options.connections ?? 4,
      ...(options.socketPath === undefined ? {} : { socketPath: options.socketPath }),
      ...(options.tls === undefined ? {} : { connect: connectOptions(options.tls) }),
    });
    this.headers = options.key === undefined ? {} : { authorization: `Bearer ${options.key.expose()}` };
  }

  /** @throws ClientError */
  async get(path: `/${string}`): Promise<unknown> {
    return parseJson(await this.whole(await this.send("GET", path)));
  }

  /** The data of each server-sent event, `[DONE]` left out. @throws ClientError */
  async *stream(path: `/${string}`, body: unknown, signal?: AbortSignal): AsyncGenerator<unknown> {
    const response = await this.send("POST", path, body, signal);
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") return;
      yield parseJson(data);
    }
  }

  private async send(method: "GET" | "POST", path: string, body?: unknown, signal?: AbortSignal) {
    try {
      const response = await this.pool.request({
        method,
        path,
        headers: { ...this.headers, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
        bodyTimeout: 0,
        headersTimeout: 0,
      });
      if (response.statusCode === 200) return response;
      throw new ClientError(refusal(response.statusCode, await this.whole(response)), response.statusCode);
    } catch (error) {
      if (error instanceof ClientError || (error as Error).name === "AbortError") throw error;
      throw new ClientError(unreachable(error as NodeJS.ErrnoException));
    }
  }

  private async whole(response: { body: AsyncIterable<Uint8Array> }): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body) {
      bytes += chunk.length;
      if (bytes > MAX_ANSWER_BYTES) throw new ClientError("the answer is larger than any answer should be");
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  async close(): Promise<void> {
    await this.pool.close();
  }

  /** Ends what is under way, too. */
  async destroy(): Promise<void> {
    await this.pool.destroy();
  }
}

function connectOptions({ authorities, pinned, certificate, key }: ClientTls) {
  return {
    ...(authorities === undefined ? {} : { ca: authorities }),
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key: key.expose() }),
    ...(pinned === undefined ? {} : { ca: pinned, allowPartialTrustChain: true, checkServerIdentity: () => undefined }),
  };
}

const UNTRUSTED = /^(?:SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_(?:GET|VERIFY)|CERT_|ERR_TLS_CERT)/;

function unreachable({ code, message }: NodeJS.ErrnoException): string {
  if (code === "EPROTO" || code?.startsWith("ERR_SSL"))
    return `the server does not speak TLS in a way that fits (${code})`;
  if (code !== undefined && UNTRUSTED.test(code))
    return `the server's certificate is not trusted (${code}); --cacert names who vouches for it`;
  return `the server cannot be reached (${code ?? message})`;
}

/** The protocol's message out of an error body, or the status alone. */
function refusal(status: number, body: string): string {
  if (status === 401) return "the key is missing or not known (401)";
  try {
    const { error } = parseJson(body) as { error?: { message?: string } };
    if (typeof error?.message === "string") return `${error.message} (${status})`;
  } catch {
    // Not JSON: the status has to do.
  }
  return `the server answered ${status}`;
}

/** `data:` lines of an event stream. Events of this server have one line each. */
async function* eventData(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    rest += decoder.decode(chunk, { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}
