/**
 * Answers for what never becomes a call: bytes that are not HTTP, and requests that break a limit of the connection.
 * They say nothing about routes or keys, so they need none. The shape is that of the default dialect's errors.
 */
import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { stringifyJson } from "#base/json.ts";

const PHRASES = {
  400: ["Bad Request", "The request is not valid HTTP/1.1."],
  408: ["Request Timeout", "The request did not arrive in time."],
  413: ["Content Too Large", "The request's chunk extensions are too large."],
  431: ["Request Header Fields Too Large", "The request's headers are too many or too large."],
} as const;

/** Fewer bytes are no request: the shortest has 18. */
const WORTH_WORDS = 16;
/** For a client to take an answer that is smaller than any buffer. */
const FAREWELL_MS = 1000;

export type RawStatus = keyof typeof PHRASES;

function body(status: RawStatus): string {
  const [type, message] = PHRASES[status];
  return stringifyJson({ error: { message, type, param: null, code: status } });
}

/** To a socket on which no answer has begun. */
export function writeRaw(socket: Duplex, status: RawStatus): void {
  const answer = rawAnswer(status, "bytesRead" in socket ? Number(socket.bytesRead) : 0);
  if (answer === undefined) {
    socket.destroy();
    return;
  }
  // Over TLS the end of a write to a client that is gone may never be told.
  const late = setTimeout(() => socket.destroy(), FAREWELL_MS);
  socket.once("close", () => clearTimeout(late));
  socket.end(answer, () => socket.destroy());
}

/** Wall: T62, who sent next to nothing is told next to nothing. */
function rawAnswer(status: RawStatus, received: number): string | undefined {
  const start = `HTTP/1.1 ${status} ${PHRASES[status][0]}\r\nConnection: close\r\n`;
  if (received === 0) return undefined;
  if (received < WORTH_WORDS) return `${start}\r\n`;
  const text = body(status);
  const head = [
    "Content-Type: application/json",
    `Content-Length: ${Buffer.byteLength(text)}`,
    "X-Content-Type-Options: nosniff",
    "Cache-Control: no-store",
  ];
  return `${start}${head.join("\r\n")}\r\n\r\n${text}`;
}

/** Through Node's response, so that earlier answers on the connection go out first. */
export function answerRaw(res: ServerResponse, status: RawStatus): void {
  const text = body(status);
  res.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    connection: "close",
  });
  res.end(text);
}

/** What Node's parser calls its findings → what we answer. */
export function rawStatusOf(code: string | undefined): RawStatus {
  if (code === "HPE_HEADER_OVERFLOW") return 431;
  if (code === "HPE_CHUNK_EXTENSIONS_OVERFLOW") return 413;
  return code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
}
