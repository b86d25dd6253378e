/**
 * How large an image would be once it is decoded, read from its headers alone, and whether that is too large. Pure.
 *
 * Why our own and no library: none of those looked at counts the frames of GIF, APNG and WebP, which is what an
 * animation of 10^5 frames is stopped by, and none walks a file to its end, which is what tells a file from two in one.
 * Invariants (Wall: T111): nothing is decompressed; every length is checked against what is there; the work is bounded by the bytes;
 * the pixels are those of all frames together, on a canvas that holds each of them.
 * Callers: verify.ts.
 */
import { gifFacts } from "./_gif.ts";
import { type ImageFacts, ImageProblem } from "./_image-bytes.ts";
import { jpegFacts } from "./_jpeg.ts";
import { pngFacts } from "./_png.ts";
import { webpFacts } from "./_webp.ts";

export type { ImageFacts } from "./_image-bytes.ts";

export interface ImageLimits {
  /** Of all frames together. */
  readonly pixels: number;
  readonly frames: number;
  /** Longer side by the shorter. */
  readonly aspectRatio: number;
}

const READERS: Readonly<Record<string, (bytes: Buffer) => ImageFacts>> = {
  "image/png": pngFacts,
  "image/jpeg": jpegFacts,
  "image/gif": gifFacts,
  "image/webp": webpFacts,
};

/** @param type what formats.ts found. @returns the facts, or what is wrong with it, for people */
export function judgeImage(
  bytes: Buffer,
  type: string,
  limits: ImageLimits,
): ImageFacts | { readonly problem: string } {
  const read = READERS[type];
  if (read === undefined) return { problem: `images of the type ${type} are not taken` };
  let facts: ImageFacts;
  try {
    facts = read(bytes);
  } catch (error) {
    if (error instanceof ImageProblem) return { problem: error.message };
    throw error;
  }
  const { width, height, frames } = facts;
  if (width < 1 || height < 1) return { problem: "an image has no pixels" };
  if (frames > limits.frames) return { problem: `an image has more than ${limits.frames} frames` };
  if (width * height * frames > limits.pixels)
    return { problem: `an image has more than ${limits.pixels} pixels, all frames together` };
  if (Math.max(width, height) > limits.aspectRatio * Math.min(width, height))
    return { problem: `an image's sides differ by more than ${limits.aspectRatio} to 1` };
  return facts;
}
