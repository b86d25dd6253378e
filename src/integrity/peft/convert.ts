/**
 * Converts an adapter in PEFT form to a GGUF, as llama.cpp's convert_lora_to_gguf.py does, without a line of Python.
 *
 * Invariants (Wall: T100): the files are ours alone, so nobody changes them between the checks and the reading; header,
 * names, shapes and ranks are judged before a value is read; at most a chunk of values is held, and the event loop is
 * free between two; a value that is not a finite number ends it. BF16 becomes F32, which holds every one of its values.
 * Callers: adapter-store.ts.
 */
import type { FileHandle } from "node:fs/promises";
import { RootedFileError as AdapterFileError } from "#integrity/_rooted-file.ts";
import { parsePeftConfig } from "./_config.ts";
import { writeAdapterGguf } from "./_gguf.ts";
import { type BaseModel, type PlannedTensor, planAdapter } from "./_plan.ts";
import { DTYPE_BYTES, type Dtype, fill, readSafetensors } from "./_safetensors.ts";

export { MAX_CONFIG_BYTES } from "./_config.ts";
export type { BaseModel } from "./_plan.ts";

/** Changes when the same folder would give another file. */
export const CONVERTER = 1;

export interface PeftFiles {
  readonly config: Uint8Array;
  readonly weights: FileHandle;
  readonly weightBytes: number;
}

export interface ConvertOptions {
  /** --max-lora-rank */
  readonly maxRank: number;
  readonly signal?: AbortSignal | undefined;
}

/** @param out empty, to be written. @throws AdapterFileError | an AbortError */
export async function convertPeft(
  { config, weights, weightBytes }: PeftFiles,
  base: BaseModel,
  out: FileHandle,
  { maxRank, signal }: ConvertOptions,
): Promise<void> {
  const settings = parsePeftConfig(config);
  const plan = planAdapter(await readSafetensors(weights, weightBytes), settings, base, maxRank);
  const values = (tensor: PlannedTensor): AsyncGenerator<Uint8Array> => valuesOf(weights, tensor, signal);
  await writeAdapterGguf(out, plan, values);
}

/** The bits of values of two or four bytes each. */
type Bits = Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

const CHUNK = 256 * 1024;

async function* valuesOf(
  file: FileHandle,
  tensor: PlannedTensor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const { source, factor } = tensor;
  for await (const bits of orderedBits(file, tensor)) {
    signal?.throwIfAborted();
    yield encoded(bits, source.dtype, factor);
  }
}

function orderedBits(file: FileHandle, tensor: PlannedTensor): AsyncGenerator<Bits> {
  if (tensor.transposed) return strips(file, tensor);
  return tensor.headRows > 0 ? heads(file, tensor) : pieces(file, tensor);
}

async function* pieces(file: FileHandle, { source }: PlannedTensor): AsyncGenerator<Bits> {
  const count = source.bytes / DTYPE_BYTES[source.dtype];
  for (let at = 0; at < count; at += CHUNK) yield readBits(file, source, at, Math.min(CHUNK, count - at));
}

/** Row s · half + j of a head (s: 0 or 1) becomes its row 2j + s. */
async function* heads(file: FileHandle, { source, headRows }: PlannedTensor): AsyncGenerator<Bits> {
  const [rows = 0, rank = 0] = source.shape;
  const half = headRows / 2;
  for (let row = 0; row < rows; row += headRows) {
    const from = await readBits(file, source, row * rank, headRows * rank);
    const to = empty(source.dtype, from.length);
    for (let at = 0; at < headRows; at++) {
      const place = at < half ? 2 * at : 2 * (at - half) + 1;
      to.set(from.subarray(at * rank, (at + 1) * rank), place * rank);
    }
    yield to;
  }
}

async function* strips(file: FileHandle, { source }: PlannedTensor): AsyncGenerator<Bits> {
  const [rows = 0, columns = 0] = source.shape;
  const wide = Math.max(1, Math.floor(CHUNK / rows));
  for (let from = 0; from < columns; from += wide) {
    const width = Math.min(wide, columns - from);
    const strip = empty(source.dtype, rows * width);
    for (let row = 0; row < rows; row++) {
      const part = await readBits(file, source, row * columns + from, width);
      for (let column = 0; column < width; column++) strip[column * rows + row] = part[column] ?? 0;
    }
    yield strip;
  }
}

function empty(dtype: Dtype, count: number): Bits {
  return dtype === "F32" ? new Uint32Array(count) : new Uint16Array(count);
}

async function readBits(
  file: FileHandle,
  { dtype, begin }: PlannedTensor["source"],
  at: number,
  count: number,
): Promise<Bits> {
  const bits = empty(dtype, count);
  await fill(new Uint8Array(bits.buffer), file, begin + at * DTYPE_BYTES[dtype]);
  checkFinite(bits, EXPONENT[dtype]);
  return bits;
}

const EXPONENT: Readonly<Record<Dtype, number>> = { F32: 0x7f800000, F16: 0x7c00, BF16: 0x7f80 };

/** NaN and the infinities are the values whose exponent is all ones. */
function checkFinite(bits: Bits, exponent: number): void {
  for (const value of bits) if ((value & exponent) === exponent) throw notFinite();
}

function notFinite(): AdapterFileError {
  return new AdapterFileError("adapter_model.safetensors holds a value that is not a finite number");
}

function encoded(bits: Bits, dtype: Dtype, factor: number): Uint8Array {
  if (factor === 1 && dtype !== "BF16") return new Uint8Array(bits.buffer);
  const values = widened(bits, dtype);
  if (factor !== 1) for (let i = 0; i < values.length; i++) values[i] = (values[i] ?? 0) * factor;
  checkFinite(new Uint32Array(values.buffer), EXPONENT.F32);
  return new Uint8Array(values.buffer);
}

function widened(bits: Bits, dtype: Dtype): Float32Array<ArrayBuffer> {
  if (dtype === "F32") return new Float32Array(bits.buffer);
  if (dtype === "F16") return Float32Array.from(bits, halfToNumber);
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = (bits[i] ?? 0) << 16;
  return new Float32Array(wide.buffer);
}

function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
