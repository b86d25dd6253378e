/**
 * What answers' heads have in common. Private to the pipeline's parts.
 */
/** Headers that an answer has besides those of its kind. */
export type OwnHeaders = Readonly<Record<string, string>>;

/** What has to be done before an answer's first byte, and what it has to say besides. */
export interface Before {
  /**
   * The call's record. One that was aborted while it was on the way waits for it all the same, so that no answer
   * overtakes it.
   * @throws Fault policy_unavailable, each time it is asked
   */
  record(status: number): void | Promise<void>;
  /** Behind `record`. */
  headers(): OwnHeaders;
}

export const STREAM_HEADERS: OwnHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store",
  // nginx and its kin would otherwise collect the stream.
  "x-accel-buffering": "no",
};

/** Name and value in turn, as a head is written. */
export function headerList(headers: Readonly<Record<string, string | number>>): string[] {
  const list: string[] = [];
  for (const name in headers) list.push(name, String(headers[name]));
  return list;
}
