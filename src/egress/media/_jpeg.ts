/**
 * JPEG (ITU T.81): segments up to the end-of-image marker. What stands behind it is not looked at: cameras put previews
 * and films there, and decoders do not read it. Used by image.ts.
 */
import { ImageBytes, type ImageFacts, ImageProblem } from "./_image-bytes.ts";

const START = 2;
const END_OF_IMAGE = 0xd9;
const START_OF_SCAN = 0xda;
const ARITHMETIC = 0xcc;
const HUFFMAN = 0xc4;
const EXTENSIONS = 0xc8;
/** A progressive image has a few; each costs a pass over all pixels. */
const MAX_SCANS = 100;

export function jpegFacts(bytes: Buffer): ImageFacts {
  const reader = new ImageBytes(bytes, START);
  let size: readonly [width: number, height: number] | undefined;
  let scans = 0;
  for (let marker = nextMarker(reader); marker !== END_OF_IMAGE; marker = nextMarker(reader)) {
    const segment = new ImageBytes(reader.take(lengthOf(reader)));
    if (isFrame(marker)) {
      if (size !== undefined) throw new ImageProblem("a JPEG has two frames");
      size = sizeIn(segment);
    }
    if (marker === START_OF_SCAN) {
      if (size === undefined) throw new ImageProblem("a JPEG has a scan before its frame");
      if (++scans > MAX_SCANS) throw new ImageProblem(`a JPEG has more than ${MAX_SCANS} scans`);
      skipScan(reader);
    }
  }
  if (size === undefined || scans === 0) throw new ImageProblem("a JPEG has no image");
  return { width: size[0], height: size[1], frames: 1 };
}

function isFrame(marker: number): boolean {
  return marker >= 0xc0 && marker <= 0xcf && marker !== HUFFMAN && marker !== EXTENSIONS && marker !== ARITHMETIC;
}

/** A height of 0 would be told later; nobody does that for good reasons. */
function sizeIn(segment: ImageBytes): readonly [width: number, height: number] {
  segment.take(1);
  const height = segment.u16be();
  return [segment.u16be(), height];
}

function nextMarker(reader: ImageBytes): number {
  if (reader.u8() !== 0xff) throw new ImageProblem("a JPEG is not made of segments");
  let marker = reader.u8();
  while (marker === 0xff) marker = reader.u8();
  if (marker < 0xc0 || isRestart(marker) || marker === 0xd8) throw new ImageProblem("a JPEG is not made of segments");
  return marker;
}

function lengthOf(reader: ImageBytes): number {
  const length = reader.u16be();
  if (length < 2) throw new ImageProblem("a JPEG is not made of segments");
  return length - 2;
}

/** To the next marker that is neither stuffing, nor a restart, nor fill. */
function skipScan(reader: ImageBytes): void {
  for (;;) {
    const found = reader.find(0xff);
    if (found === undefined) throw new ImageProblem("an image ends too early");
    reader.at = found + 1;
    const after = reader.u8();
    if (after === 0 || isRestart(after)) continue;
    // Of fill bytes the last one may begin the marker.
    reader.at = after === 0xff ? found + 1 : found;
    if (after !== 0xff) return;
  }
}

function isRestart(marker: number): boolean {
  return marker >= 0xd0 && marker <= 0xd7;
}
