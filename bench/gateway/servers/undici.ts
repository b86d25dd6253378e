/**
 * The least that passes calls on with node:http and undici's dispatch: no key, no log, no limit.
 * usage: undici.ts PORT UPSTREAM
 */
import { createServer, type ServerResponse } from "node:http";
import { type Dispatcher, Pool } from "undici";

const [port, upstream] = process.argv.slice(2).map(Number);
const pool = new Pool(`http://127.0.0.1:${upstream}`, { connections: 4096, pipelining: 1 });

class Relay implements Dispatcher.DispatchHandler {
  readonly #res: ServerResponse;

  constructor(res: ServerResponse) {
    this.#res = res;
  }

  onRequestStart(): void {}

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[]>,
  ): void {
    const { connection: _c, "transfer-encoding": _t, ...rest } = headers;
    this.#res.writeHead(status, rest);
    this.#res.on("drain", () => controller.resume());
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#res.write(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    this.#res.end();
  }

  onResponseError(): void {
    this.#res.destroy();
  }
}

createServer((req, res) => {
  const pieces: Buffer[] = [];
  req.on("data", (piece: Buffer) => pieces.push(piece));
  req.on("end", () => {
    const body = pieces.length === 1 ? (pieces[0] ?? null) : Buffer.concat(pieces);
    const headers = ["content-type", "application/json", "authorization", "Bearer upstream"];
    pool.dispatch({ path: "/v1/chat/completions", method: "POST", headers, body }, new Relay(res));
  });
}).listen(port, "127.0.0.1");
