/**
 * URLs of a request's media as data: URLs, for a model or a server behind this one that shall fetch nothing itself.
 * All of them, or the fault of the first that cannot be had.
 */
import { dataUrl } from "./data-url.ts";
import type { MediaCaller, MediaFetcher, MediaRequest } from "./fetcher.ts";
import { mediaFault } from "./refusal.ts";
import type { Media } from "./verify.ts";

export interface MediaPlace extends MediaRequest {
  /** The field that holds the URL: `messages.0.content.1.image_url.url`. */
  readonly param: string;
}

export interface InlineMedia {
  /** With the type that the bytes have. */
  readonly url: string;
  readonly digest: Media["digest"];
}

/** @returns one for each place, in order. @throws Fault invalid_request | overloaded | cancelled, naming the field */
export async function inlineMedia(
  fetcher: Pick<MediaFetcher, "fetchAll">,
  places: readonly MediaPlace[],
  caller: MediaCaller,
): Promise<readonly InlineMedia[]> {
  const outcome = await fetcher.fetchAll(places, caller);
  if ("refusal" in outcome) throw mediaFault(outcome.refusal, places[outcome.index]?.param ?? "");
  return outcome.all.map(({ type, bytes, digest }) => ({ url: dataUrl(type, bytes), digest }));
}
