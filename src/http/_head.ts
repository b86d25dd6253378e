/**
 * What answers' heads have in common. Private to the pipeline's parts.
 */
import type { OutgoingHttpHeaders } from "node:http";

/** Headers that an answer has besides those of its kind. */
export type OwnHeaders = Readonly<Record<string, string>>;

/** What has to be done before an answer's first byte. */
export type Before = (status: number) => OwnHeaders | Promise<OwnHeaders>;

export const STREAM_HEADERS: OutgoingHttpHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  // nginx and its kin would otherwise collect the stream.
  "x-accel-buffering": "no",
};
