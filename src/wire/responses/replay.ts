/**
 * The events of a stored background response, as they were sent the first time.
 */
import type { KeptResponse, ResponseError, ResponseEvent } from "#core/responses.ts";
import { rewound } from "./body.ts";
import { Writer, type WriterOptions } from "./writer.ts";

/** What was kept is what was to be seen: nothing is left out again. */
const OPTIONS = { cachedTokens: true, tokensAsIds: false, logs: false };

/** @param kept one that has ended */
export function* replay(
  { body, status, log = [], error }: KeptResponse,
  reasoningEvents: WriterOptions["reasoningEvents"],
): Generator<ResponseEvent> {
  const writer = new Writer(rewound(body), { ...OPTIONS, reasoningEvents });
  yield* writer.begin();
  for (const event of log) yield* writer.push(event);
  const cause = error ?? (body["error"] as ResponseError | null) ?? undefined;
  yield* writer.stop(status === "cancelled" ? "cancelled" : "failed", cause);
}
