/**
 * Events of a response → SSE frames: `event:` with the type, `data:` with the event. No `[DONE]`.
 */
import { stringifyJson } from "#base/json.ts";
import { sseEvent } from "#base/sse.ts";
import type { ResponseEvent } from "#core/responses.ts";

export async function* responseFrames(events: AsyncIterable<ResponseEvent>): AsyncGenerator<string> {
  for await (const event of events) yield sseEvent(event.type, stringifyJson(event));
}
