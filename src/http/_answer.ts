/**
 * An answer that goes out whole, head and body in one write, where the connection goes on behind it.
 *
 * Why not writeHead and end: they make a text of the head, piece by piece, check each, and another text of head and body;
 * here both are bytes in a place that is there already (_head-bytes.ts). Only what is plain is written here: HTTP/1.1, a
 * body, a connection that is kept; everything else is node:http's, which also keeps its books of every answer. Callers:
 * listener.ts makes the server with it, _exchange.ts writes.
 */
import type { IncomingMessage } from "node:http";
import { writeWhole } from "./_head-bytes.ts";

/** Not imported, as in listener.ts. */
const { ServerResponse } = process.getBuiltinModule("node:http");

export class Answer<R extends IncomingMessage = IncomingMessage> extends ServerResponse<R> {
  /** As node:http knows that a head is made, and gone. */
  declare _header: string | null;
  declare _headerSent: boolean;

  /**
   * @param headers name and value in turn, the body's length among them; nothing about the connection
   * @param body not kept
   * @param keptMs how long the connection may be idle, as the client is told
   * @returns false: it is none of those; nothing is written
   * @throws Error a header that is none; nothing is written
   */
  whole(status: number, headers: readonly string[], body: Uint8Array, keptMs: number): boolean {
    const { socket } = this;
    if (socket === null || !this.#isPlain(status)) return false;
    if (!writeWhole(socket, { status, headers, keptMs }, body)) return false;
    this.statusCode = status;
    this._header = "sent";
    this._headerSent = true;
    this.end();
    return true;
  }

  #isPlain(status: number): boolean {
    const { method, httpVersion } = this.req;
    return (
      this.shouldKeepAlive &&
      !this.headersSent &&
      !this.destroyed &&
      httpVersion === "1.1" &&
      method !== "HEAD" &&
      status >= 200 &&
      status !== 204 &&
      status !== 304
    );
  }
}
