/**
 * POST /v2/embed, Cohere's, after vLLM's CohereEmbedRequest (vllm/entrypoints/pooling/embed/protocol.py).
 */
import { z } from "zod";
import { stringifyJson } from "#base/json.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { PoolOutput } from "#core/pool.ts";
import type { PoolAnswer, PoolCall, Truncation } from "#core/pool-calls.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireList, requireObject, requireString } from "#wire/openai/_compound.ts";
import { int, int64, shape } from "#wire/openai/_fields.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";
import { decodeParts } from "./_texts.ts";
import { base64Of, numbersOf, vectorTexts } from "./vectors.ts";

const TYPES = ["float", "binary", "ubinary", "base64"] as const;
type EmbeddingType = (typeof TYPES)[number];

const TEXTS = { type: "array", items: { type: "string" } };

export const CohereEmbedBody = z.object({
  model: z.string().nullish(),
  input_type: z.string().max(64).nullish(),
  texts: shape(TEXTS),
  images: shape({ description: "Not supported: refused with 501." }),
  inputs: shape({ type: "array", items: { type: "object", properties: { content: { type: "array" } } } }),
  output_dimension: int.nullish(),
  embedding_types: shape({ type: "array", items: { enum: TYPES } }),
  truncate: z.enum(["NONE", "START", "END"]).optional(),
  max_tokens: int.gte(1).nullish(),
  priority: int64.optional(),
});
type Body = z.infer<typeof CohereEmbedBody>;

export interface DecodedCohere {
  readonly call: PoolCall;
  readonly types: readonly EmbeddingType[];
  /** What the answer repeats: texts as they came, if they came as texts. */
  readonly texts: readonly string[] | undefined;
}

/**
 * @param prefixes what the operator puts in front of a text, by input_type
 * @throws Fault invalid_request | not_implemented, naming the field
 */
export function decodeCohere(body: Body, caps: RequestCaps, prefixes: ReadonlyMap<string, string>): DecodedCohere {
  const types = decodeTypes(body.embedding_types);
  const { field, texts } = decodeTexts(body, caps);
  const prefix = prefixOf(body.input_type ?? undefined, prefixes);
  const truncate = decodeTruncation(body);
  const call = dropAbsent<PoolCall>({
    model: body.model ?? undefined,
    task: "embed",
    api: "Embeddings",
    source: dropAbsent<PoolCall["source"]>({
      kind: "prompts",
      prompts: texts.map((text) => prefix + text),
      addSpecialTokens: true,
      field,
      mostTokens: truncate === undefined ? (body.max_tokens ?? undefined) : undefined,
    }),
    dimensions: body.output_dimension ?? undefined,
    packed: types.includes("binary") || types.includes("ubinary") || undefined,
    truncate,
    priority: body.priority,
    useActivation: undefined,
    callId: undefined,
  });
  return { call, types, texts: field === "texts" ? texts : undefined };
}

function decodeTypes(value: unknown): readonly EmbeddingType[] {
  if (value === undefined || value === null) return ["float"];
  const list = requireList(value, "embedding_types", TYPES.length);
  const types = list.map((entry, i) => {
    const type = TYPES.find((known) => known === entry);
    if (type === undefined)
      throw invalid(`embedding_types.${i}`, `An embedding type is one of ${TYPES.join(", ")} here.`);
    return type;
  });
  return types.length === 0 ? ["float"] : [...new Set(types)];
}

function decodeTexts(
  { texts, images, inputs }: Body,
  caps: RequestCaps,
): { readonly field: "texts" | "inputs"; readonly texts: readonly string[] } {
  const isGiven = (value: unknown): boolean => value !== undefined && value !== null;
  if (isGiven(images))
    throw new Fault("not_implemented", "Images are not supported by this server yet.", { param: "images" });
  if (isGiven(texts) === isGiven(inputs)) throw invalid("texts", "Exactly one of texts, images or inputs is required.");
  const field = isGiven(texts) ? "texts" : "inputs";
  const list = requireList(texts ?? inputs, field, caps.poolingInputs);
  if (list.length === 0) throw invalid(field, `${field} must hold at least one entry.`);
  if (field === "texts") return { field, texts: list.map((entry, i) => requireString(entry, `texts.${i}`)) };
  const read = (entry: unknown, i: number): string =>
    decodeParts(requireObject(entry, `inputs.${i}`)["content"], `inputs.${i}.content`, caps).text;
  return { field, texts: list.map(read) };
}

function prefixOf(type: string | undefined, prefixes: ReadonlyMap<string, string>): string {
  if (type === undefined) return "";
  const prefix = prefixes.get(type);
  if (prefix !== undefined) return prefix;
  const known = [...prefixes.keys()].join(", ");
  throw invalid(
    "input_type",
    `Unsupported input_type '${type}'. ${known === "" ? "No input types are configured here." : `Known are: ${known}.`}`,
  );
}

function decodeTruncation({ truncate = "END", max_tokens: most }: Body): Truncation | undefined {
  if (truncate === "NONE") return undefined;
  return { tokens: most ?? -1, side: truncate === "START" ? "left" : "right", field: "max_tokens" };
}

const numbers = z.array(z.number());
const tokens = z.object({ input_tokens: z.int().min(0) });

export const CohereEmbedReply = z.object({
  id: z.string().startsWith("embd-"),
  embeddings: z.object({
    float: z.array(numbers).optional(),
    binary: z.array(numbers).optional(),
    ubinary: z.array(numbers).optional(),
    base64: z.array(z.string()).optional(),
  }),
  texts: z.array(z.string()).optional(),
  meta: z.object({ api_version: z.object({ version: z.literal("2") }), billed_units: tokens, tokens }),
});

/** The answer's JSON text. */
export async function encodeCohere(
  { outputs, usage }: PoolAnswer,
  id: string,
  { types, texts }: Pick<DecodedCohere, "types" | "texts">,
): Promise<string> {
  const printed: string[] = [];
  for (const type of types) printed.push(`"${type}":[${(await vectorTexts(outputs, PRINTERS[type])).join(",")}]`);
  const used = { input_tokens: usage.promptTokens };
  const rest = {
    ...(texts === undefined ? {} : { texts }),
    meta: { api_version: { version: "2" }, billed_units: used, tokens: used },
  };
  return `{"id":${stringifyJson(id)},"embeddings":{${printed.join(",")}},${stringifyJson(rest).slice(1)}`;
}

const FLOAT32 = { dtype: "float32", endianness: "little" } as const;

const PRINTERS: Readonly<Record<EmbeddingType, (output: PoolOutput) => unknown>> = {
  float: (output) => numbersOf(output, false),
  base64: (output) => base64Of(output, FLOAT32),
  ubinary: ({ values }) => packed(values),
  binary: ({ values }) => packed(values).map((byte) => byte - 128),
};

/** A bit a number, 1 where it is not negative, the first in the highest place. */
function packed(values: Float32Array): number[] {
  return Array.from({ length: Math.ceil(values.length / 8) }, (_, byte) =>
    values.subarray(byte * 8, byte * 8 + 8).reduce((bits, value, at) => bits | ((value >= 0 ? 1 : 0) << (7 - at)), 0),
  );
}
