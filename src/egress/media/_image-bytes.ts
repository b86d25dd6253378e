/** Bytes of an image file, read in order and never past their end. Used by the readers of formats. */

export interface ImageFacts {
  readonly width: number;
  readonly height: number;
  readonly frames: number;
}

export class ImageProblem extends Error {
  override readonly name = "ImageProblem";
}

export class ImageBytes {
  readonly #bytes: Buffer;
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.#bytes = bytes;
    this.at = at;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  /** @throws ImageProblem there are fewer */
  take(count: number): Buffer {
    if (count > this.left) throw new ImageProblem("an image ends too early");
    const from = this.at;
    this.at += count;
    return this.#bytes.subarray(from, this.at);
  }

  text(count: number): string {
    return this.take(count).toString("latin1");
  }

  u8(): number {
    return this.take(1).readUInt8();
  }

  u16be(): number {
    return this.take(2).readUInt16BE();
  }

  u32be(): number {
    return this.take(4).readUInt32BE();
  }

  u16le(): number {
    return this.take(2).readUInt16LE();
  }

  u24le(): number {
    return this.take(3).readUIntLE(0, 3);
  }

  u32le(): number {
    return this.take(4).readUInt32LE();
  }

  /** The place of the byte from here on, or undefined. */
  find(byte: number): number | undefined {
    const found = this.#bytes.indexOf(byte, this.at);
    return found < 0 ? undefined : found;
  }

  /** @throws ImageProblem there is more: another file may stand behind the image's end */
  end(): void {
    if (this.left > 0) throw new ImageProblem("something stands behind an image's end");
  }
}
