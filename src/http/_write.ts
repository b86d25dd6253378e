/**
 * Writing an answer, at the client's speed.
 *
 * Invariants: an event source is pulled for one frame at a time, and not while the client is behind; the head of a
 * stream is written when its first frame is there; a source that was opened is closed on every path.
 */
import { stringifyJson } from "#base/json.ts";
import { sseComment } from "#base/sse.ts";
import type { Exchange } from "./_exchange.ts";
import { type Before, headerList, type OwnHeaders, STREAM_HEADERS } from "./_head.ts";
import { linger, sendsOn } from "./_linger.ts";
import { writeRelay } from "./_write-relay.ts";
import type { Reply } from "./reply.ts";

/** Larger bodies go out in pieces, so that a slow client shows as one. */
const PIECE_BYTES = 64 * 1024;
const KEEP_ALIVE = sseComment("keep-alive");

/**
 * Undefined: it is written, and taken.
 * @throws what `before` or the frames throw, or the reason of the abort
 */
export function writeReply(exchange: Exchange, reply: Reply, before: Before): Promise<void> | undefined {
  if (reply.kind === "relay") return writeRelay(exchange, reply, before);
  if (reply.kind === "events") return writeEvents(exchange, reply.frames, before);
  if (reply.kind === "channel") return writeLater(exchange, reply, before);
  return reply.kind === "stream" ? writeStream(exchange, reply, before) : writeKnown(exchange, reply, before);
}

type ChannelReply = Extract<Reply, { readonly kind: "channel" }>;

async function writeLater(exchange: Exchange, reply: ChannelReply, before: Before): Promise<void> {
  const { writeChannel } = await import("./_channel.ts");
  return writeChannel(exchange, reply, async () => ownHeaders(exchange, before, 101));
}

type Known = Exclude<Reply, { readonly kind: "relay" | "events" | "stream" | "channel" }>;

async function writeKnown(exchange: Exchange, reply: Known, before: Before): Promise<void> {
  const status = reply.kind === "bytes" ? 200 : (reply.status ?? 200);
  const own = await ownHeaders(exchange, before, status);
  switch (reply.kind) {
    case "json":
      return writeWhole(
        exchange,
        status,
        { ...own, ...reply.headers, "content-type": "application/json" },
        stringifyJson(reply.body),
      );
    case "text":
      return writeWhole(exchange, status, { ...own, "content-type": reply.contentType }, reply.body);
    case "bytes":
      return writeWhole(exchange, status, { ...own, ...reply.headers, "content-type": reply.contentType }, reply.body);
    case "empty":
      return writeWhole(exchange, status, own, "");
  }
}

/** When the record is written. @throws what `before` throws, or the reason of the abort */
function ownHeaders(exchange: Exchange, before: Before, status: number): OwnHeaders | Promise<OwnHeaders> {
  const recorded = before.record(status);
  if (recorded instanceof Promise) return exchange.race(recorded.then(() => before.headers()));
  if (exchange.aborted !== undefined) throw exchange.aborted;
  return before.headers();
}

export async function writeWhole(
  exchange: Exchange,
  status: number,
  headers: OwnHeaders,
  content: string | Uint8Array,
): Promise<void> {
  const body = typeof content === "string" ? Buffer.from(content) : content;
  const length = status === 204 ? {} : { "content-length": body.length };
  exchange.head(status, headerList({ "cache-control": "no-store", ...headers, ...length }), body.length);
  const lingers = await sendsOn(exchange);
  // The last piece goes with the end, so that a small answer is one write; a lingering one must be out before it.
  let at = 0;
  for (; (lingers ? at : at + PIECE_BYTES) < body.length && !exchange.gone; at += PIECE_BYTES) {
    if (!exchange.write(body.subarray(at, at + PIECE_BYTES))) await exchange.taken();
  }
  if (lingers) await linger(exchange);
  else exchange.end(body.subarray(at));
  await exchange.taken();
}

async function writeStream(
  exchange: Exchange,
  { pieces, length }: Extract<Reply, { kind: "stream" }>,
  before: Before,
): Promise<void> {
  const source = pieces[Symbol.asyncIterator]();
  try {
    const own = await ownHeaders(exchange, before, 200);
    const described = {
      "content-type": "application/octet-stream",
      "content-length": length,
      // What somebody uploaded is no page of this server.
      "content-disposition": "attachment",
    };
    exchange.head(200, headerList({ "cache-control": "no-store", ...own, ...described }));
    for (let step = await exchange.race(source.next()); !step.done; step = await exchange.race(source.next()))
      if (!exchange.write(step.value)) await exchange.taken();
  } finally {
    await source.return?.();
  }
  exchange.end();
  await exchange.taken();
}

async function writeEvents(exchange: Exchange, frames: AsyncIterable<string>, before: Before): Promise<void> {
  exchange.streaming = true;
  const source = frames[Symbol.asyncIterator]();
  exchange.counters.handlers++;
  let drained = false;
  let silence: NodeJS.Timeout | undefined;
  try {
    let step = await exchange.race(source.next());
    exchange.head(200, headerList({ ...(await ownHeaders(exchange, before, 200)), ...STREAM_HEADERS }));
    silence = keepAlive(exchange);
    while (!step.done) {
      if (!exchange.write(step.value)) await exchange.taken();
      silence?.refresh();
      step = await exchange.race(source.next());
    }
    drained = true;
  } finally {
    clearInterval(silence);
    release(exchange, source, drained);
  }
  exchange.end();
  await exchange.taken();
}

function keepAlive(exchange: Exchange): NodeJS.Timeout | undefined {
  const { sseKeepAliveMs } = exchange.options;
  if (sseKeepAliveMs === 0) return undefined;
  return setInterval(() => {
    if (!exchange.gone && !exchange.res.writableNeedDrain) exchange.write(KEEP_ALIVE);
  }, sseKeepAliveMs);
}

/** Tells the source to stop, without waiting for it; it counts as a handler until it has. */
function release(exchange: Exchange, source: AsyncIterator<string>, drained: boolean): void {
  const ended = (): void => {
    exchange.counters.handlers--;
  };
  const closing = drained ? undefined : source.return?.();
  if (closing === undefined) ended();
  else closing.then(ended, ended);
}
