/**
 * Vectors on the wire: lists of numbers, base64, or the raw bytes.
 *
 * A long answer is printed one vector at a time, so that other calls go on meanwhile.
 */
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import { invalid } from "#core/fault.ts";
import type { PoolOutput } from "#core/pool.ts";
import type { PoolAnswer } from "#core/pool-calls.ts";
import { type PrintedUsage, poolUsage } from "./_usage.ts";

const DTYPES = ["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "fp8_e4m3fn"] as const;
const BYTES: Readonly<Record<string, number>> = { float32: 4, float16: 2, bfloat16: 2 };

export const formatFields = {
  encoding_format: z.enum(["float", "base64", "bytes", "bytes_only"]).optional(),
  embed_dtype: z.enum(DTYPES).optional(),
  endianness: z.enum(["native", "big", "little"]).optional(),
};

export interface VectorFormat {
  readonly encoding: "float" | "base64" | "bytes" | "bytes_only";
  readonly dtype: "float32" | "float16" | "bfloat16";
  readonly endianness: "native" | "big" | "little";
}

interface FormatBody {
  readonly encoding_format?: VectorFormat["encoding"] | undefined;
  readonly embed_dtype?: (typeof DTYPES)[number] | undefined;
  readonly endianness?: VectorFormat["endianness"] | undefined;
}

/** An entry a vector stands in a header of the answer, and clients take 16 KiB of headers. */
const MOST_IN_METADATA = 64;

/** @param inputs of the request @throws Fault invalid_request */
export function decodeFormat(body: FormatBody, inputs: number): VectorFormat {
  const { encoding_format: encoding = "float", embed_dtype: dtype = "float32", endianness = "native" } = body;
  if (dtype !== "float32" && dtype !== "float16" && dtype !== "bfloat16")
    throw invalid("embed_dtype", `embed_dtype ${dtype} is not supported; float32, float16 and bfloat16 are.`);
  if (encoding === "bytes" && inputs > MOST_IN_METADATA)
    throw invalid(
      "encoding_format",
      `encoding_format bytes is for at most ${MOST_IN_METADATA} inputs, as each has an entry in a header; use bytes_only.`,
    );
  return { encoding, dtype, endianness };
}

/** The numbers one after another. This machine, like all that this runs on, is little-endian. */
export function rawBytes(values: Float32Array, { dtype, endianness }: Omit<VectorFormat, "encoding">): Uint8Array {
  const little = endianness !== "big";
  const size = BYTES[dtype] ?? 4;
  const bytes = new Uint8Array(values.length * size);
  const view = new DataView(bytes.buffer);
  values.forEach((value, at) => {
    if (dtype === "float32") view.setFloat32(at * size, value, little);
    else if (dtype === "float16") view.setFloat16(at * size, value, little);
    else view.setUint16(at * size, bfloat16(value), little);
  });
  return bytes;
}

const word = new DataView(new ArrayBuffer(4));

/** The upper half of a float32, rounded to the nearest, ties to even. */
function bfloat16(value: number): number {
  word.setFloat32(0, value);
  const bits = word.getUint32(0);
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** One list, or a list a row where there is one a token. */
export function numbersOf({ values, rows, width }: PoolOutput, nested: boolean): number[] | number[][] {
  if (!nested) return Array.from(values);
  return Array.from({ length: rows }, (_, row) => Array.from(values.subarray(row * width, (row + 1) * width)));
}

/** Numbers after which others get their turn. */
const NUMBERS_AT_ONCE = 65_536;

/** The JSON text of what is printed of each output. */
export async function vectorTexts(
  outputs: readonly PoolOutput[],
  print: (output: PoolOutput) => unknown,
): Promise<readonly string[]> {
  const texts: string[] = [];
  let printed = 0;
  for (const output of outputs) {
    texts.push(stringifyJson(print(output)));
    printed += output.values.length;
    if (printed < NUMBERS_AT_ONCE) continue;
    printed = 0;
    await new Promise(setImmediate);
  }
  return texts;
}

/** The raw bytes in base64. */
export function base64Of({ values }: PoolOutput, format: Omit<VectorFormat, "encoding">): string {
  return Buffer.from(rawBytes(values, format)).toString("base64");
}

/** What an answer of the family begins with. */
export interface Heading {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
}

/**
 * The JSON text of a whole list.
 * @param names what an entry is called, and the field of its vector
 */
export async function listText(
  answer: PoolAnswer,
  { id, created }: Heading,
  format: VectorFormat,
  names: { readonly object: string; readonly field: string },
): Promise<string> {
  const head = stringifyJson({ id, object: "list", created, model: answer.model }).slice(0, -1);
  const nested = answer.task === "token_embed";
  const print = (output: PoolOutput): unknown =>
    format.encoding === "float" ? numbersOf(output, nested) : base64Of(output, format);
  const texts = await vectorTexts(answer.outputs, print);
  const entries = texts.map((text, index) => `{"index":${index},"object":"${names.object}","${names.field}":${text}}`);
  return `${head},"data":[${entries.join(",")}],"usage":${stringifyJson(poolUsage(answer.usage))}}`;
}

export interface BytesAnswer {
  readonly body: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

/** The vectors' bytes one after another; where each stands is in the header `metadata`, unless it is not wanted. */
export function bytesAnswer(answer: PoolAnswer, { id, created }: Heading, format: VectorFormat): BytesAnswer {
  const { dtype, endianness } = format;
  const parts = answer.outputs.map(({ values }) => rawBytes(values, format));
  const body = Buffer.concat(parts);
  if (format.encoding === "bytes_only") return { body, headers: {} };
  let end = 0;
  const data = answer.outputs.map(({ rows, width }, index) => {
    const start = end;
    end += parts[index]?.length ?? 0;
    const shape = answer.task === "token_embed" ? [rows, width] : [width];
    return { index, embed_dtype: dtype, endianness, start, end, shape };
  });
  const usage: PrintedUsage = poolUsage(answer.usage);
  return { body, headers: { metadata: ascii(stringifyJson({ id, created, model: answer.model, data, usage })) } };
}

/** A header holds no other characters. */
function ascii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
