/**
 * The floor of sockets in JavaScript: whole requests and answers passed on with node:net alone, a key looked up, another
 * put in its place, a line of JSON a request. What a server with a parser of requests of its own could come to at best.
 *
 * No gateway: of HTTP it knows what this bench's client and upstream say (a Content-Length, or chunks whose last one
 * comes by itself), and it believes both. Nothing else may be sent to it.
 * usage: raw.ts PORT UPSTREAM KEYS.json
 */
import { createWriteStream, readFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";

const [port = "", upstream = "", keysFile = ""] = process.argv.slice(2);
const keys = new Map((JSON.parse(readFileSync(keysFile, "utf8")) as string[]).map((key, i) => [key, `key_${i}`]));
const log = createWriteStream(join(keysFile, "../raw.log"));
const HEAD_END = Buffer.from("\r\n\r\n");
const LAST_CHUNK = Buffer.from("0\r\n\r\n");
const idle: Upstream[] = [];

/** Bytes from a socket until a message is whole; what has come can be taken at any time. */
class Message {
  head = "";
  #parts: Buffer[] = [];
  #left = -1;
  #chunked = false;

  /** @returns whether it is whole */
  push(bytes: Buffer): boolean {
    if (this.#left >= 0 || this.#chunked) return this.#body(bytes);
    const all = this.#parts.length === 0 ? bytes : Buffer.concat([...this.#parts, bytes]);
    const at = all.indexOf(HEAD_END);
    if (at < 0) {
      this.#parts = [all];
      return false;
    }
    this.head = all.toString("latin1", 0, at);
    const length = /\r\ncontent-length: *(\d+)/i.exec(this.head)?.[1];
    this.#chunked = length === undefined;
    this.#left = length === undefined ? -1 : Number(length);
    this.#parts = [];
    return this.#body(all.subarray(at + HEAD_END.length));
  }

  take(): readonly Buffer[] {
    const taken = this.#parts;
    this.#parts = [];
    return taken;
  }

  #body(bytes: Buffer): boolean {
    this.#parts.push(bytes);
    if (this.#chunked) return bytes.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK);
    this.#left -= bytes.length;
    return this.#left === 0;
  }
}

class Upstream {
  readonly #socket: Socket;
  #answer = new Message();
  #client: Socket | undefined;
  #told = false;

  constructor() {
    this.#socket = connect(Number(upstream), "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (bytes: Buffer) => this.#onData(bytes));
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => this.#client?.destroy());
  }

  ask(head: string, body: readonly Buffer[], client: Socket): void {
    this.#answer = new Message();
    this.#told = false;
    this.#client = client;
    this.#socket.cork();
    this.#socket.write(head, "latin1");
    for (const part of body) this.#socket.write(part);
    this.#socket.uncork();
  }

  cancel(): void {
    if (this.#client !== undefined) this.#socket.destroy();
  }

  #onData(bytes: Buffer): void {
    const client = this.#client;
    if (client === undefined) return;
    const isWhole = this.#answer.push(bytes);
    if (this.#told) client.write(bytes);
    else if (this.#answer.head !== "") this.#tell(client);
    if (!isWhole) return;
    this.#client = undefined;
    idle.push(this);
  }

  #tell(client: Socket): void {
    this.#told = true;
    client.cork();
    client.write(`${this.#answer.head}\r\n\r\n`, "latin1");
    for (const part of this.#answer.take()) client.write(part);
    client.uncork();
  }
}

class Client {
  readonly #socket: Socket;
  #request = new Message();
  #upstream: Upstream | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on("data", (bytes: Buffer) => this.#onData(bytes));
    socket.on("error", () => {});
    socket.on("close", () => this.#upstream?.cancel());
  }

  #onData(bytes: Buffer): void {
    if (!this.#request.push(bytes)) return;
    const { head } = this.#request;
    const key = keys.get(/\r\nauthorization: Bearer ([^\r]*)/i.exec(head)?.[1] ?? "");
    if (key === undefined) {
      this.#socket.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
      return;
    }
    const body = this.#request.take();
    const size = body.reduce((sum, part) => sum + part.length, 0);
    const passed =
      "POST /v1/chat/completions HTTP/1.1\r\nhost: model\r\ncontent-type: application/json\r\n" +
      `authorization: Bearer upstream\r\nx-key: ${key}\r\ncontent-length: ${size}\r\n\r\n`;
    this.#request = new Message();
    this.#upstream = idle.pop() ?? new Upstream();
    this.#upstream.ask(passed, body, this.#socket);
    log.write(`{"time":${Date.now()},"key":"${key}","bytes":${size}}\n`);
  }
}

createServer({ noDelay: true }, (socket) => new Client(socket)).listen({
  port: Number(port),
  host: "127.0.0.1",
  backlog: 4096,
});
