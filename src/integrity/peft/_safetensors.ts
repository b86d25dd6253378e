/**
 * Reads the header of a safetensors file: eight bytes of length, a JSON object of names, then the values of all tensors.
 *
 * Invariants (Wall: T100): the length is bounded before anything is read for it; every tensor is of a type that we know,
 * and as long as its shape says; together they fill the rest of the file, with no hole, no overlap and no byte behind.
 * Nothing else is read: a pickle or an archive under this name is refused by what it is. Pure but for the reading.
 */
import type { FileHandle } from "node:fs/promises";
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { RootedFileError as AdapterFileError } from "#integrity/_rooted-file.ts";

export type Dtype = "F32" | "F16" | "BF16";

export interface StoredTensor {
  readonly dtype: Dtype;
  /** As PyTorch has it: the last is the row length. */
  readonly shape: readonly number[];
  /** Byte offset in the file. */
  readonly begin: number;
  readonly bytes: number;
}

export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = { F32: 4, F16: 2, BF16: 2 };

const LENGTH_BYTES = 8;
const MAX_HEADER = 4 * 1024 * 1024;
const MAX_TENSORS = 16_384;
const MAX_NAME = 512;
const MAX_DIMENSIONS = 2;
const MAX_SIDE = 2 ** 31;
/** Header, tensors, and for each a name, two lists of two and a text. */
const LIMITS = { maxDepth: 4, maxValues: MAX_TENSORS * 64 };
const OPEN_BRACE = 0x7b;

/** @param bytes of the file. @throws AdapterFileError */
export async function readSafetensors(file: FileHandle, bytes: number): Promise<ReadonlyMap<string, StoredTensor>> {
  const start = await readAt(file, 0, Math.min(bytes, LENGTH_BYTES + 1));
  refuseOthers(start);
  if (start.length <= LENGTH_BYTES) throw refused("is too short to be a safetensors file");
  const length = start.readUInt32LE(0) + start.readUInt32LE(4) * 2 ** 32;
  if (length > MAX_HEADER) throw refused(`promises a header of more than ${MAX_HEADER} bytes`);
  if (length < 2 || LENGTH_BYTES + length > bytes) throw refused("is shorter than its header says");
  const header = parsed(await readAt(file, LENGTH_BYTES, length));
  const tensors = Object.entries(header).filter(([name]) => name !== "__metadata__");
  if (tensors.length > MAX_TENSORS) throw refused(`has more than ${MAX_TENSORS} tensors`);
  const data = LENGTH_BYTES + length;
  const read = new Map(tensors.map(([name, value]) => [checkName(name), tensorOf(value, data)]));
  checkLayout([...read.values()], data, bytes);
  return read;
}

/** What is often found under such a name, told by its first bytes; none of it is read any further. */
function refuseOthers(start: Buffer): void {
  const magic = start.toString("latin1", 0, 4);
  if (magic.startsWith("PK")) throw refused("is a zip archive, as PyTorch writes pickles: pickles are never read");
  if (magic === "GGUF") throw refused("is a GGUF: name the file itself as the path");
  if (start[LENGTH_BYTES] === OPEN_BRACE) return;
  if (start[0] === 0x80 && (start[1] ?? 0) >= 2 && (start[1] ?? 0) <= 5)
    throw refused("is a pickle, and pickles are never read");
  throw refused("is not a safetensors file");
}

function parsed(bytes: Buffer): { readonly [key: string]: JsonValue } {
  try {
    const value = parseJson(bytes, LIMITS);
    if (isObject(value)) return value;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw refused(`has a header that cannot be read: ${error.message}`);
  }
  throw refused("has a header that is no object");
}

function checkName(name: string): string {
  if (name.length > MAX_NAME || !/^[\x21-\x7e]+$/.test(name)) throw refused("has a tensor with a name of odd form");
  return name;
}

function tensorOf(value: JsonValue, data: number): StoredTensor {
  if (!isObject(value) || Object.keys(value).length !== 3) throw refused("has a tensor that is not described as one");
  const { dtype, shape, data_offsets: offsets } = value;
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")
    throw refused("has a tensor that is not F32, F16 or BF16");
  if (!isSizes(shape) || shape.length > MAX_DIMENSIONS || shape.some((side) => side < 1 || side > MAX_SIDE))
    throw refused("has a tensor of an absurd shape");
  if (!isSizes(offsets) || offsets.length !== 2) throw refused("has a tensor without its place");
  const [begin = 0, end = 0] = offsets;
  const bytes = shape.reduce((product, side) => product * side, DTYPE_BYTES[dtype]);
  if (!Number.isSafeInteger(bytes) || end - begin !== bytes)
    throw refused("has a tensor that is not as long as its shape says");
  return { dtype, shape, begin: data + begin, bytes };
}

function checkLayout(tensors: readonly StoredTensor[], data: number, end: number): void {
  let at = data;
  for (const { begin, bytes } of tensors.toSorted((a, b) => a.begin - b.begin)) {
    if (begin !== at) throw refused("has tensors that overlap, or lie apart");
    at += bytes;
  }
  if (at !== end) throw refused("is not as long as its tensors are together");
}

function isObject(value: JsonValue | undefined): value is { [key: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSizes(value: JsonValue | undefined): value is number[] {
  return (
    Array.isArray(value) && value.every((item) => typeof item === "number" && Number.isSafeInteger(item) && item >= 0)
  );
}

async function readAt(file: FileHandle, at: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(bytes);
  await fill(buffer, file, at);
  return buffer;
}

/** Reads as many bytes as there is room for. @throws AdapterFileError the file is shorter */
export async function fill(bytes: Uint8Array, file: FileHandle, at: number): Promise<void> {
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, at + filled);
    if (bytesRead === 0) throw refused("is shorter than it was");
    filled += bytesRead;
  }
}

function refused(reason: string): AdapterFileError {
  return new AdapterFileError(`adapter_model.safetensors ${reason}`);
}
