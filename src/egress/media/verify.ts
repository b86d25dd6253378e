/**
 * Bytes that came from anywhere, held against what they should be, before any decoder sees them.
 * Callers: fetcher.ts, for what it fetched, what it kept, and what stood in a URL.
 */
import type { MediaDigest } from "./digest.ts";
import { type MediaKind, mediaType } from "./formats.ts";
import { type ImageFacts, type ImageLimits, judgeImage } from "./image.ts";

/** Bytes that are what they are said to be. */
export interface Media {
  readonly kind: MediaKind;
  readonly bytes: Buffer;
  /** The media type that the bytes have. */
  readonly type: string;
  readonly digest: { readonly algorithm: MediaDigest["algorithm"]; readonly hex: string };
  /** Of an image. */
  readonly image?: ImageFacts;
}

export interface VerifyOptions {
  readonly image: ImageLimits;
  readonly digest: MediaDigest;
}

/** @returns the media, or what is wrong with them, for people */
export function verifyMedia(
  bytes: Buffer,
  kind: MediaKind,
  declared: string | undefined,
  { image: limits, digest }: VerifyOptions,
): Media | { readonly problem: string } {
  const type = mediaType(bytes, kind, declared);
  if (type === undefined)
    return { problem: `the content is no ${kind} of a type that is taken, or not what it is said to be` };
  const plain = { kind, bytes, type, digest: { algorithm: digest.algorithm, hex: digest.of(bytes) } };
  if (kind !== "image") return plain;
  const image = judgeImage(bytes, type, limits);
  return "problem" in image ? image : { ...plain, image };
}
