/**
 * Judges a LoRA adapter (a GGUF as llama.cpp's convert_lora_to_gguf.py writes it) against the model it is for, before
 * libllama sees either: a value of another type, a rank that does not meet, or a tensor of a type that cannot be
 * multiplied ends the process there.
 *
 * Called by native/adapters.ts, and by the app so that a refusal has its reason.
 */
import { GgufError } from "./errors.ts";
import { type GgufHeader, type GgufScalar, readGgufHeader, type TensorInfo } from "./header.ts";

export interface AdapterFacts {
  /** The largest of its tensors. */
  readonly rank: number;
  readonly alpha: number;
  /** Bytes of the file, which is what it takes in memory. */
  readonly bytes: number;
}

const FLOAT32 = 6;
const STRING = 8;
/** F32, F16, Q8_0, BF16: what adapters are written in. */
const TYPES: ReadonlySet<number> = new Set([0, 1, 8, 30]);
const ALPHA = "adapter.lora.alpha";
const INVOCATION = "adapter.alora.invocation_tokens";

/**
 * @param maxRank --max-lora-rank
 * @throws GgufError | Error (ENOENT and kin)
 */
export function readAdapter(path: string, model: GgufHeader, maxRank: number): AdapterFacts {
  const header = readGgufHeader(path, judgeAdapter);
  checkMetadata(header, model);
  let rank = 0;
  for (const [name, info] of header.tensors) rank = Math.max(rank, checkTensor(name, info, header, model));
  if (rank === 0) throw refused("it changes no tensor");
  if (rank > maxRank) throw refused(`its rank is ${rank} and --max-lora-rank is ${maxRank}`);
  return { rank, alpha: header.metadata.get(ALPHA) as number, bytes: header.fileBytes };
}

function judgeAdapter(metadata: ReadonlyMap<string, GgufScalar>): string {
  if (metadata.get("general.type") !== "adapter") throw refused("this GGUF is not an adapter");
  const architecture = metadata.get("general.architecture");
  if (typeof architecture !== "string") throw refused("the header does not name an architecture");
  return architecture;
}

function checkMetadata({ metadata, scalarTypes, arrayLengths, architecture }: GgufHeader, model: GgufHeader): void {
  for (const key of ["general.type", "general.architecture", "adapter.type"])
    if (scalarTypes.get(key) !== STRING) throw refused(`${key} is not a text`);
  if (metadata.get("adapter.type") !== "lora") throw refused("the adapter is not a LoRA");
  if (architecture !== model.architecture)
    throw refused(`it is for another architecture than the model (${model.architecture})`);
  const alpha = metadata.get(ALPHA);
  if (scalarTypes.get(ALPHA) !== FLOAT32 || !Number.isFinite(alpha)) throw refused(`${ALPHA} is not a finite float`);
  if (metadata.has(INVOCATION) || arrayLengths.has(INVOCATION))
    throw refused("activated LoRA (invocation tokens) is not supported");
}

/** @returns the rank; 0 for the second of a pair */
function checkTensor(name: string, info: TensorInfo, header: GgufHeader, model: GgufHeader): number {
  if (!TYPES.has(info.type)) throw refused("a tensor is neither F32, F16, BF16 nor Q8_0");
  if (name.endsWith(".lora_b")) {
    if (!header.tensors.has(`${name.slice(0, -1)}a`)) throw refused("a tensor has no partner");
    return 0;
  }
  if (!name.endsWith(".lora_a")) throw refused("a tensor is neither lora_a nor lora_b");
  const target = name.slice(0, -".lora_a".length);
  const base = model.tensors.get(target);
  const other = header.tensors.get(`${target}.lora_b`);
  if (base === undefined) throw refused("it changes a tensor that the model does not have");
  if (other === undefined) throw refused("a tensor has no partner");
  return rankOf(target, base.shape, info.shape, other.shape);
}

/** llama-adapter.cpp: B·A has the base's shape; for the token embedding A and B change places. */
function rankOf(target: string, base: readonly number[], a: readonly number[], b: readonly number[]): number {
  const at = (shape: readonly number[], dimension: number): number => shape[dimension] ?? 1;
  const embedding = target.endsWith("token_embd.weight");
  const [rows, columns] = embedding ? [at(b, 1), at(a, 1)] : [at(a, 0), at(b, 1)];
  const rank = embedding ? at(a, 0) : at(a, 1);
  const meets = at(b, 0) === rank && rows === at(base, 0) && columns === at(base, 1);
  const deep = [2, 3].every((d) => at(a, d) === at(base, d) && at(b, d) === at(base, d));
  if (base.length < 2 || !meets || !deep) throw refused("a tensor's shape does not fit the model");
  return rank;
}

function refused(reason: string): GgufError {
  return new GgufError("unsupported", reason);
}
