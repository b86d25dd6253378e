/**
 * What a GGUF adapter made of PEFT tensors will hold: which, where from, and what is done to them. Pure.
 *
 * llama.cpp multiplies B·A with alpha / rank, one alpha for the file. PEFT's factor is alpha / rank, or alpha / √rank, and
 * may differ by module: what the one alpha does not say is multiplied into B.
 */
import type { GgufHeader } from "#engine/gguf/header.ts";
import { RootedFileError as AdapterFileError } from "#integrity/_rooted-file.ts";
import type { PeftConfig } from "./_config.ts";
import { type PeftName, peftName } from "./_names.ts";
import type { StoredTensor } from "./_safetensors.ts";

/** What has to be known of the model that an adapter changes. */
export type BaseModel = Pick<GgufHeader, "architecture" | "tensors" | "metadata">;

export interface PlannedTensor {
  readonly name: string;
  /** ggml order: the first is the row length. */
  readonly shape: readonly [number, number];
  readonly source: StoredTensor;
  /** For every value; 1: as it is. */
  readonly factor: number;
  /** Rows of one head, to be put in the order of rotary pairs; 0: the rows stay where they are. */
  readonly headRows: number;
  /** Rows become columns. */
  readonly transposed: boolean;
}

export interface AdapterPlan {
  readonly architecture: string;
  readonly alpha: number;
  readonly tensors: readonly PlannedTensor[];
}

interface Pair {
  readonly name: PeftName;
  readonly a: StoredTensor;
  readonly b: StoredTensor;
  readonly rank: number;
  /** What the alpha of the file would have to be for this one. */
  readonly alpha: number;
}

/** @param maxRank --max-lora-rank. @throws AdapterFileError */
export function planAdapter(
  stored: ReadonlyMap<string, StoredTensor>,
  config: PeftConfig,
  base: BaseModel,
  maxRank: number,
): AdapterPlan {
  const pairs = pairsOf(stored, config, base).toSorted((x, y) => (x.name.target < y.name.target ? -1 : 1));
  if (pairs.length === 0) throw refused("it changes no tensor");
  const rank = Math.max(...pairs.map((pair) => pair.rank));
  if (rank > maxRank) throw refused(`its rank is ${rank} and --max-lora-rank is ${maxRank}`);
  const alpha = mostCommon(pairs.map((pair) => pair.alpha));
  return { architecture: base.architecture, alpha, tensors: pairs.flatMap((pair) => plannedPair(pair, alpha, base)) };
}

function pairsOf(stored: ReadonlyMap<string, StoredTensor>, config: PeftConfig, base: BaseModel): readonly Pair[] {
  const halves = new Map<string, { name: PeftName; a?: StoredTensor; b?: StoredTensor }>();
  for (const [text, tensor] of stored) {
    const name = peftName(text, base.architecture);
    const half = halves.get(name.target) ?? { name };
    if (half[name.side] !== undefined) throw refused(`two tensors change ${name.target}`);
    half[name.side] = tensor;
    halves.set(name.target, half);
  }
  return [...halves.values()].map(({ name, a, b }) => {
    if (a === undefined || b === undefined)
      throw refused(`the change of ${name.module} has one of its two tensors only`);
    const rank = checkShapes(name, a, b, base);
    if (rank !== config.rankOf(name.module))
      throw refused(`the rank of ${name.module} is ${rank}, and not what adapter_config.json says`);
    return { name, a, b, rank, alpha: Math.fround(config.scaleOf(name.module, rank) * rank) };
  });
}

/** @returns the rank */
function checkShapes({ module, target }: PeftName, a: StoredTensor, b: StoredTensor, base: BaseModel): number {
  const changed = base.tensors.get(target);
  if (changed === undefined) throw refused(`it changes ${module}, a tensor of which the model does not have`);
  const [inner = 0, outer = 0] = target === EMBEDDING ? changed.shape.toReversed() : changed.shape;
  const [rank = 0, columns] = a.shape;
  const [rows, other] = b.shape;
  if (changed.shape.length !== 2 || columns !== inner || rows !== outer || other !== rank || rank === 0)
    throw refused(`the tensors of ${module} have a shape that does not fit the model`);
  return rank;
}

const EMBEDDING = "token_embd.weight";

function plannedPair({ name, a, b, rank, alpha }: Pair, ofFile: number, base: BaseModel): readonly PlannedTensor[] {
  const [, columns = 0] = a.shape;
  const [rows = 0] = b.shape;
  const plain = { factor: 1, headRows: 0, transposed: false };
  const shapeA = name.embedding ? ([rank, columns] as const) : ([columns, rank] as const);
  return [
    { ...plain, name: `${name.target}.lora_a`, shape: shapeA, source: a, transposed: name.embedding },
    {
      ...plain,
      name: `${name.target}.lora_b`,
      shape: [rank, rows],
      source: b,
      factor: alpha === ofFile ? 1 : alpha / ofFile,
      headRows: name.heads === undefined ? 0 : headRows(name.heads, rows, base),
    },
  ];
}

function headRows(kind: "q" | "k", rows: number, { architecture, metadata }: BaseModel): number {
  const all = metadata.get(`${architecture}.attention.head_count`);
  const ofKeys = metadata.get(`${architecture}.attention.head_count_kv`) ?? all;
  const heads = kind === "q" ? all : ofKeys;
  // Where heads differ by layer the header has a list, which is no number.
  if (typeof heads !== "number" || heads < 1 || rows % (2 * heads) !== 0)
    throw refused("the model's heads are not of a form that adapters in PEFT form can be converted for");
  return rows / heads;
}

function mostCommon(values: readonly number[]): number {
  const counts = new Map<number, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].reduce((best, next) => (next[1] > best[1] ? next : best))[0];
}

function refused(reason: string): AdapterFileError {
  return new AdapterFileError(`the adapter is refused: ${reason}`);
}
