/**
 * The end of an answer to a request whose body nobody reads. Private to the pipeline's parts.
 */
import type { Exchange } from "./_exchange.ts";

/** Whether the client still sends a body that nobody reads. */
export function sendsOn(exchange: Exchange): false | Promise<boolean> {
  const { bodyRead, hasBody, req } = exchange;
  return !bodyRead && hasBody && req.headers.expect === undefined && stillSends(exchange);
}

async function stillSends({ req }: Exchange): Promise<boolean> {
  // A small body came with the head: Node's parser is through with it one turn later, without our reading it.
  await new Promise(setImmediate);
  return req.complete === false;
}

/**
 * The answer is out, whole by its length; closing now, with unread bytes about, would send a reset that can overtake
 * it. So the connection stays for a moment, unread, and is then destroyed.
 */
export async function linger(exchange: Exchange): Promise<void> {
  if (!exchange.gone) {
    await new Promise<void>((resolve) => {
      const timer = exchange.counters.after(exchange.options.lingerMs, resolve);
      exchange.res.once("close", () => {
        timer.end();
        resolve();
      });
    });
  }
  exchange.res.destroy();
}
