/**
 * Reads the header of a GGUF file (v2, v3) and decides whether it is a model that this server can serve, before
 * anything native is called or anything large is allocated.
 *
 * Every count and length in the file is untrusted: each is bounded before it is used. Source: docs/gguf.md of ggml.
 */
import { closeSync, fstatSync, openSync } from "node:fs";
import { FileReader } from "./_reader.ts";
import { TENSOR_TYPES } from "./_tensor-types.ts";
import { ARCHITECTURES, ENCODERS } from "./architectures.ts";
import { GgufError } from "./errors.ts";
import { judgeMetadata, judgeTensors, type Metadata, type TokenFacts, tokenFacts } from "./judge.ts";

export type GgufScalar = number | boolean | string;

export interface TensorInfo {
  /** ggml order: the first is the row length. */
  readonly shape: readonly number[];
  /** ggml's type number. */
  readonly type: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly architecture: string;
  /** Scalar metadata; arrays are only counted (`arrayLengths`). */
  readonly metadata: ReadonlyMap<string, GgufScalar>;
  /** The format's type number of each scalar: libllama ends the process where it expects another one. */
  readonly scalarTypes: ReadonlyMap<string, number>;
  readonly arrayLengths: ReadonlyMap<string, number>;
  /** Of a classifier (`<architecture>.classifier.output_labels`); empty for others. */
  readonly labels: readonly string[];
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Elements of all tensors. */
  readonly parameters: number;
  readonly fileBytes: number;
}

const MAX_METADATA = 65_536;
const MAX_TENSORS = 65_536;
const MAX_KEY_BYTES = 65_535;
/** GGML_MAX_NAME, with its final NUL. */
const MAX_TENSOR_NAME = 63;
const MAX_TEXT_BYTES = 16 << 20;
const MAX_ARRAY = 16_000_000;
/** Longer arrays of numbers (scores, token types) are only counted. */
const MAX_NUMBERS = 4096;
const MAX_LABELS = 65_536;
const MAX_LABEL_BYTES = 4096;
const LABELS = /\.classifier\.output_labels$/;
const MAX_DIMENSIONS = 4;
/** What a text takes at least: its length. */
const TEXT_BYTES = 8;
const TOKENS = "tokenizer.ggml.tokens";
const MAGIC = 0x46554747; // "GGUF", little-endian
const STRING = 8;
const ARRAY = 9;
const FIXED_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** What a header is to be, judged by its metadata before its tensors are read. @returns the architecture @throws GgufError */
export type Judge = (metadata: ReadonlyMap<string, GgufScalar>, all: Metadata) => string;

/** @param judge a model that this server can serve, unless told otherwise. @throws GgufError | Error (ENOENT and kin) */
export function readGgufHeader(path: string, judge: Judge = judgeModel): GgufHeader {
  const fd = openSync(path, "r");
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new GgufError("not-gguf", "this is not a file");
    return parse(new FileReader(fd, stat.size), judge);
  } finally {
    closeSync(fd);
  }
}

function parse(reader: FileReader, judge: Judge): GgufHeader {
  const version = readPreamble(reader);
  const tensorCount = bounded(reader.u64(), MAX_TENSORS, "tensors");
  const metadataCount = bounded(reader.u64(), MAX_METADATA, "metadata keys");
  const found = new Found();
  for (let i = 0; i < metadataCount; i++) found.readEntry(reader);
  const { scalars: metadata, scalarTypes, arrayLengths, labels } = found;
  const architecture = judge(metadata, found);
  const alignment = metadata.get("general.alignment") ?? 32;
  if (typeof alignment !== "number" || !Number.isInteger(alignment) || alignment < 1 || alignment > 1 << 20)
    throw new GgufError("malformed", "general.alignment is absurd");
  const { end, parameters, tensors } = readTensors(reader, tensorCount, alignment);
  if (judge === judgeModel) judgeTensors(tensors);
  const dataStart = Math.ceil(reader.offset / alignment) * alignment;
  if (dataStart + end > reader.size) {
    throw new GgufError(
      "truncated",
      `the file is truncated: its tensors need ${dataStart + end} bytes and it has ${reader.size}`,
    );
  }
  const fileBytes = reader.size;
  return { version, architecture, metadata, scalarTypes, arrayLengths, labels, tensors, parameters, fileBytes };
}

function readPreamble(reader: FileReader): number {
  if (reader.size < 4 || reader.u32() !== MAGIC) throw new GgufError("not-gguf", "this is not a GGUF file");
  const version = reader.u32();
  if ((version & 0xffff) === 0) throw new GgufError("unsupported", "big-endian GGUF files are not supported");
  if (version !== 2 && version !== 3) throw new GgufError("unsupported", `GGUF version ${version} is not supported`);
  return version;
}

function bounded(value: number, limit: number, what: string): number {
  if (value > limit)
    throw new GgufError("malformed", `the header promises ${value} ${what}; at most ${limit} are believed`);
  return value;
}

class Found implements Metadata {
  readonly scalars = new Map<string, GgufScalar>();
  readonly scalarTypes = new Map<string, number>();
  readonly arrayLengths = new Map<string, number>();
  readonly numbers = new Map<string, readonly number[]>();
  readonly labels: string[] = [];
  tokens: TokenFacts | undefined;

  readEntry(reader: FileReader): void {
    const key = reader.text(MAX_KEY_BYTES);
    if (this.scalars.has(key) || this.arrayLengths.has(key))
      throw new GgufError("malformed", "a metadata key stands twice");
    const type = reader.u32();
    if (type === ARRAY) this.arrayLengths.set(key, this.#readArray(reader, key));
    else {
      this.scalars.set(key, readScalar(reader, type));
      this.scalarTypes.set(key, type);
    }
  }

  /** Arrays are walked over, as libllama reads them itself; what has to be judged is kept. None are nested in models. */
  #readArray(reader: FileReader, key: string): number {
    const type = reader.u32();
    const count = bounded(reader.u64(), MAX_ARRAY, "array items");
    if (LABELS.test(key)) return this.#readLabels(reader, type, count);
    if (type === STRING && count * TEXT_BYTES > reader.size - reader.offset)
      throw new GgufError("truncated", "the file ends in the middle of its header: it is truncated");
    if (type === STRING && key === TOKENS)
      this.tokens = tokenFacts(Array.from({ length: count }, () => reader.bytes(MAX_TEXT_BYTES)));
    else if (type === STRING) for (let i = 0; i < count; i++) reader.skipText(MAX_TEXT_BYTES);
    else {
      const size = FIXED_BYTES[type];
      if (size === undefined) throw new GgufError("malformed", `an array of type ${type} is not supported`);
      if (count > MAX_NUMBERS) reader.skip(size * count);
      else
        this.numbers.set(
          key,
          Array.from({ length: count }, () => Number(readScalar(reader, type))),
        );
    }
    return count;
  }

  #readLabels(reader: FileReader, type: number, count: number): number {
    if (type !== STRING) throw new GgufError("malformed", "the labels of a classifier are texts");
    bounded(count, MAX_LABELS, "labels");
    for (let i = 0; i < count; i++) this.labels.push(reader.text(MAX_LABEL_BYTES));
    return count;
  }
}

function readScalar(reader: FileReader, type: number): GgufScalar {
  switch (type) {
    case 0:
      return reader.u8();
    case 1:
      return reader.number(1, (b, at) => b.readInt8(at));
    case 2:
      return reader.number(2, (b, at) => b.readUInt16LE(at));
    case 3:
      return reader.number(2, (b, at) => b.readInt16LE(at));
    case 4:
      return reader.u32();
    case 5:
      return reader.number(4, (b, at) => b.readInt32LE(at));
    case 6:
      return reader.number(4, (b, at) => b.readFloatLE(at));
    case 7:
      return reader.u8() !== 0;
    case STRING:
      return reader.text(MAX_TEXT_BYTES);
    case 10:
      return reader.number(8, (b, at) => Number(b.readBigUInt64LE(at)));
    case 11:
      return reader.number(8, (b, at) => Number(b.readBigInt64LE(at)));
    case 12:
      return reader.number(8, (b, at) => b.readDoubleLE(at));
    default:
      throw new GgufError("malformed", `metadata of unknown type ${type}`);
  }
}

function judgeModel(metadata: ReadonlyMap<string, GgufScalar>, all: Metadata): string {
  const architecture = metadata.get("general.architecture");
  if (typeof architecture !== "string") throw new GgufError("malformed", "the header does not name an architecture");
  if (!ARCHITECTURES.has(architecture) && !ENCODERS.has(architecture))
    throw new GgufError("unsupported", `the architecture '${printable(architecture)}' is not supported`);
  const parts = metadata.get("split.count");
  if (typeof parts === "number" && parts > 1)
    throw new GgufError("unsupported", `the model is split into ${parts} files; merge them first`);
  judgeMetadata(architecture, all);
  return architecture;
}

function printable(name: string): string {
  return name.replace(/[^\x20-\x7e]/g, "?").slice(0, 64);
}

/** `end`: of the last tensor, relative to the data section. */
interface Tensors {
  readonly end: number;
  /** Elements in all. */
  readonly parameters: number;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

function readTensors(reader: FileReader, count: number, alignment: number): Tensors {
  let end = 0;
  let parameters = 0;
  const tensors = new Map<string, TensorInfo>();
  for (let i = 0; i < count; i++) {
    const name = reader.text(MAX_TENSOR_NAME);
    if (tensors.has(name)) throw new GgufError("malformed", "two tensors have one name");
    const shape = readShape(reader);
    const elements = shape.reduce((product, size) => product * size, 1);
    const type = reader.u32();
    const block = TENSOR_TYPES[type];
    if (block === undefined) throw new GgufError("unsupported", `tensor type ${type} is not supported`);
    const offset = reader.u64();
    if ((shape[0] ?? 1) % block[0] !== 0) throw new GgufError("malformed", "a tensor's rows do not fit its type");
    if (offset !== Math.ceil(end / alignment) * alignment)
      throw new GgufError("malformed", "the tensors do not lie one after another");
    end = offset + (elements / block[0]) * block[1];
    parameters += elements;
    if (!Number.isSafeInteger(end)) throw new GgufError("malformed", "a tensor lies beyond any file");
    tensors.set(name, { shape, type });
  }
  return { end, parameters, tensors };
}

function readShape(reader: FileReader): number[] {
  const dimensions = reader.u32();
  if (dimensions > MAX_DIMENSIONS) throw new GgufError("malformed", `a tensor has ${dimensions} dimensions`);
  const shape: number[] = [];
  let elements = 1;
  for (let d = 0; d < dimensions; d++) {
    const size = reader.u64();
    shape.push(size);
    elements *= size;
    if (elements === 0 || !Number.isSafeInteger(elements))
      throw new GgufError("malformed", "a tensor's shape is absurd");
  }
  return shape;
}
