/** WebP (RFC 9649): the simple forms, and the extended one with its frames; as long as its header says. Used by image.ts. */
import { ImageBytes, type ImageFacts, ImageProblem } from "./_image-bytes.ts";

const BEHIND_RIFF = 8;

interface Size {
  readonly width: number;
  readonly height: number;
}

export function webpFacts(bytes: Buffer): ImageFacts {
  const reader = new ImageBytes(bytes, 4);
  if (reader.u32le() + BEHIND_RIFF !== bytes.length) throw new ImageProblem("a WebP is not as long as it says");
  reader.take(4);
  const first = chunk(reader);
  if (first.name !== "VP8X") {
    while (reader.left > 0) chunk(reader);
    return { ...bitstream(first.name, first.body), frames: 1 };
  }
  return extended(reader, first.body);
}

function extended(reader: ImageBytes, head: ImageBytes): ImageFacts {
  head.take(4);
  const canvas = { width: head.u24le() + 1, height: head.u24le() + 1 };
  let { width, height } = canvas;
  let frames = 0;
  let stills = 0;
  while (reader.left > 0) {
    const { name, body } = chunk(reader);
    if (name === "VP8 " || name === "VP8L") {
      const still = bitstream(name, body);
      stills++;
      if (still.width !== canvas.width || still.height !== canvas.height)
        throw new ImageProblem("a WebP has two sizes");
    }
    if (name !== "ANMF") continue;
    frames++;
    const [left, top] = [2 * body.u24le(), 2 * body.u24le()];
    width = Math.max(width, left + body.u24le() + 1);
    height = Math.max(height, top + body.u24le() + 1);
  }
  if (frames + stills === 0 || stills > 1 || (stills > 0 && frames > 0))
    throw new ImageProblem("a WebP has no image, or several in one");
  return { width, height, frames: Math.max(1, frames) };
}

function bitstream(name: string, body: ImageBytes): Size {
  if (name === "VP8 ") {
    const key = (body.u8() & 1) === 0;
    body.take(2);
    if (!key || body.text(3) !== "\x9d\x01\x2a") throw new ImageProblem("a WebP does not begin with a key frame");
    return { width: body.u16le() & 0x3fff, height: body.u16le() & 0x3fff };
  }
  if (name !== "VP8L" || body.u8() !== 0x2f) throw new ImageProblem("a WebP has no image");
  const bits = body.u32le();
  return { width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 };
}

function chunk(reader: ImageBytes): { readonly name: string; readonly body: ImageBytes } {
  const name = reader.text(4);
  const length = reader.u32le();
  const body = new ImageBytes(reader.take(length));
  // Chunks have an even length.
  if (length % 2 === 1) reader.take(1);
  return { name, body };
}
