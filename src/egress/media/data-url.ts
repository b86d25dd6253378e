/**
 * Media that stand in their URL (RFC 2397), read strictly. Pure.
 *
 * Invariant: one text has one reading and one content one text: base64 only, in its canonical form (RFC 4648, 3.5), so
 * that nothing that a filter saw decodes to something else here; nothing is decoded that is too large.
 * Callers: fetcher.ts, and serving for media that stand in a request.
 */

export interface DataUrl {
  /** As it is written, parameters included; empty: nothing is said. */
  readonly type: string;
  readonly bytes: Buffer;
}

const PREFIX = /^data:/i;
/** Type and parameters, without quotes; then `;base64`. */
const HEAD =
  /^(?:[a-z0-9][a-z0-9!#$&^_.+-]{0,62}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,62})?(?:;[a-z0-9-]{1,32}=[a-z0-9,_.+-]{0,64}){0,4};base64$/i;
const MAX_HEAD = 400;

export function isDataUrl(text: string): boolean {
  return PREFIX.test(text);
}

/** @returns the content, or what is wrong, for the client */
export function readDataUrl(text: string, maxBytes: number): DataUrl | { readonly problem: string } {
  const comma = text.slice(0, MAX_HEAD).indexOf(",");
  const head = text.slice("data:".length, Math.max(0, comma));
  if (comma < 0 || !HEAD.test(head)) return { problem: "a data: URL is of the form data:TYPE;base64,CONTENT" };
  const content = text.slice(comma + 1);
  if ((content.length / 4) * 3 - 2 > maxBytes) return { problem: `a data: URL holds more than ${maxBytes} bytes` };
  const bytes = Buffer.from(content, "base64");
  // The decoder takes other alphabets, spaces, missing ends and bits that count for nothing; what it read says which.
  if (bytes.toString("base64") !== content) return { problem: "a data: URL's content is not canonical base64" };
  if (bytes.length === 0 || bytes.length > maxBytes)
    return { problem: `a data: URL holds nothing, or more than ${maxBytes} bytes` };
  return { type: head.slice(0, -";base64".length), bytes };
}

/** The other way. */
export function dataUrl(type: string, bytes: Buffer): string {
  return `data:${type};base64,${bytes.toString("base64")}`;
}
