/**
 * Why there are no media, in words that a client may have.
 *
 * Invariant (Wall: T110): what depends on anything but the text that the client itself sent has one sentence, whatever it
 * was: a refused address, a name that is not there, a port that is shut, a wrong answer, a wrong type, a file outside.
 * So nobody learns from it what a place looks like from here. What the client's own text or bytes say is told plainly.
 * Callers: fetcher.ts makes them; serving and app turn them into faults.
 */
import { Fault } from "#core/fault.ts";

export interface MediaRefusal {
  /**
   * `off`: such URLs are not taken · `bad_url`: by its text alone · `bad_content`: of a data: URL · `too_many`: of one
   * request · `unusable`: anything that was found out by asking · `busy`: later, perhaps · `cancelled`: by the caller.
   */
  readonly kind: "off" | "bad_url" | "bad_content" | "too_many" | "unusable" | "busy" | "cancelled";
  /** For the client. */
  readonly message: string;
}

const MESSAGES = {
  off: "This server fetches no media from such URLs: send them as data: URLs.",
  bad_url: "This server does not fetch media from this URL.",
  unusable: "The media could not be fetched from their URL, or are not what was asked for.",
  busy: "Too many media are being fetched at the moment.",
  cancelled: "The request was cancelled.",
} as const;

export function refusal(kind: keyof typeof MESSAGES): MediaRefusal {
  return { kind, message: MESSAGES[kind] };
}

/** @param param the field that holds the URL */
export function mediaFault({ kind, message }: MediaRefusal, param: string): Fault {
  if (kind === "busy") return new Fault("overloaded", message, { param, retryAfterMs: 1000 });
  if (kind === "cancelled") return new Fault("cancelled", message);
  return new Fault("invalid_request", message, { param });
}
