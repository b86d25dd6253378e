/** PNG and APNG (W3C PNG, third edition): chunks from IHDR to IEND, and nothing behind it. Used by image.ts. */
import { ImageBytes, type ImageFacts, ImageProblem } from "./_image-bytes.ts";

const SIGNATURE = 8;
const NAME = /^[A-Za-z]{4}$/;

export function pngFacts(bytes: Buffer): ImageFacts {
  const reader = new ImageBytes(bytes, SIGNATURE);
  const [width, height] = header(reader);
  let announced = 0;
  let frames = 0;
  let hasData = false;
  for (;;) {
    const { name, body } = chunk(reader);
    if (name === "IHDR") throw new ImageProblem("a PNG has two headers");
    if (name === "IDAT") hasData = true;
    if (name === "acTL") announced = new ImageBytes(body).u32be();
    if (name === "fcTL") frames++;
    if (name === "IEND") break;
  }
  reader.end();
  if (!hasData) throw new ImageProblem("a PNG has no data");
  return { width, height, frames: Math.max(1, announced, frames) };
}

function header(reader: ImageBytes): readonly [width: number, height: number] {
  const { name, body } = chunk(reader);
  if (name !== "IHDR" || body.length !== 13) throw new ImageProblem("a PNG does not begin with its header");
  return [body.readUInt32BE(0), body.readUInt32BE(4)];
}

function chunk(reader: ImageBytes): { readonly name: string; readonly body: Buffer } {
  const length = reader.u32be();
  const name = reader.text(4);
  if (!NAME.test(name)) throw new ImageProblem("a PNG is not made of chunks");
  const body = reader.take(length);
  // The checksum is the decoder's business.
  reader.take(4);
  return { name, body };
}
