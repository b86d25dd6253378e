/**
 * An answer that came after its call was over: nobody will read what it streams. Private to the pipeline's parts.
 */
import type { Reply } from "./reply.ts";

export function discard(reply: Reply): void {
  if (reply.kind === "relay") reply.source.cancel();
  const source = reply.kind === "events" ? reply.frames : reply.kind === "stream" ? reply.pieces : undefined;
  source?.[Symbol.asyncIterator]()
    .return?.()
    .catch(() => {});
}
