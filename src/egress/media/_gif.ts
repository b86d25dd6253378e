/** GIF (87a, 89a): blocks up to the trailer, and nothing behind it. Used by image.ts. */
import { ImageBytes, type ImageFacts, ImageProblem } from "./_image-bytes.ts";

const SIGNATURE = 6;
const EXTENSION = 0x21;
const IMAGE = 0x2c;
const TRAILER = 0x3b;

export function gifFacts(bytes: Buffer): ImageFacts {
  const reader = new ImageBytes(bytes, SIGNATURE);
  let [width, height] = [reader.u16le(), reader.u16le()];
  const flags = reader.u8();
  reader.take(2);
  colours(reader, flags);
  let frames = 0;
  for (let block = reader.u8(); block !== TRAILER; block = reader.u8()) {
    if (block === EXTENSION) {
      reader.take(1);
      subBlocks(reader);
    } else if (block === IMAGE) {
      const [left, top] = [reader.u16le(), reader.u16le()];
      // A frame may stand out of the screen, and a decoder may make room for it.
      width = Math.max(width, left + reader.u16le());
      height = Math.max(height, top + reader.u16le());
      colours(reader, reader.u8());
      reader.take(1);
      subBlocks(reader);
      frames++;
    } else throw new ImageProblem("a GIF is not made of blocks");
  }
  reader.end();
  if (frames === 0) throw new ImageProblem("a GIF has no image");
  return { width, height, frames };
}

/** The table of colours, if the flags say that there is one. */
function colours(reader: ImageBytes, flags: number): void {
  if ((flags & 0x80) !== 0) reader.take(3 * 2 ** ((flags & 7) + 1));
}

function subBlocks(reader: ImageBytes): void {
  for (let length = reader.u8(); length > 0; length = reader.u8()) reader.take(length);
}
