/**
 * Writes a LoRA adapter as a GGUF (v3): the few keys that llama.cpp reads of one, the tensors' table, the tensors.
 *
 * Pure but for the writing. Callers: convert.ts.
 */
import type { FileHandle } from "node:fs/promises";
import type { AdapterPlan, PlannedTensor } from "./_plan.ts";

const VERSION = 3;
const ALIGNMENT = 32;
const FLOAT32 = 6;
const STRING = 8;
/** ggml's type numbers. */
const F32 = 0;
const F16 = 1;

/** @param values of a tensor, in order, as ggml lays them out */
export async function writeAdapterGguf(
  out: FileHandle,
  plan: AdapterPlan,
  values: (tensor: PlannedTensor) => AsyncIterable<Uint8Array>,
): Promise<void> {
  const head = header(plan);
  await out.writeFile(head);
  await out.writeFile(padding(head.length));
  for (const tensor of plan.tensors) {
    for await (const chunk of values(tensor)) await out.writeFile(chunk);
    await out.writeFile(padding(bytesOf(tensor)));
  }
}

function header({ architecture, alpha, tensors }: AdapterPlan): Buffer {
  const parts: Buffer[] = [Buffer.from("GGUF"), u32(VERSION), u64(tensors.length), u64(4)];
  for (const [key, value] of [
    ["general.architecture", architecture],
    ["general.type", "adapter"],
    ["adapter.type", "lora"],
  ] as const)
    parts.push(text(key), u32(STRING), text(value));
  parts.push(text("adapter.lora.alpha"), u32(FLOAT32), f32(alpha));
  let offset = 0;
  for (const tensor of tensors) {
    parts.push(text(tensor.name), u32(tensor.shape.length), ...tensor.shape.map(u64));
    parts.push(u32(typeOf(tensor)), u64(offset));
    offset += bytesOf(tensor) + padding(bytesOf(tensor)).length;
  }
  return Buffer.concat(parts);
}

/** As convert.ts gives the values: F16 stays what it is, unless it is multiplied; all else is F32. */
function typeOf({ source, factor }: PlannedTensor): number {
  return source.dtype === "F16" && factor === 1 ? F16 : F32;
}

function bytesOf(tensor: PlannedTensor): number {
  return tensor.shape[0] * tensor.shape[1] * (typeOf(tensor) === F16 ? 2 : 4);
}

function padding(bytes: number): Buffer {
  return Buffer.alloc((ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}
