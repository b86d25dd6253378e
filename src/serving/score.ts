/**
 * Texts against texts → one score a pair: by the model's own head, or as the cosine of two embeddings.
 */
import { invalid } from "#core/fault.ts";
import type { PoolOutput } from "#core/pool.ts";
import type { ScoreAnswer, ScoreCall } from "#core/pool-calls.ts";
import type { Grant } from "#core/principal.ts";
import { capsFor } from "#core/request-caps.ts";
import { fitPair, readSide, type Side } from "./_pair-input.ts";
import { Reader } from "./_pool-input.ts";
import { pooled } from "./_pooled.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";
import { poolRequest, unsupported } from "./pool.ts";

/** @throws Fault invalid_request | model_not_found | rate_limited, and as Backend.pool does */
export async function score(
  grant: Grant<"embeddings">,
  serving: Serving,
  call: ScoreCall,
  signal: AbortSignal,
): Promise<ScoreAnswer> {
  const model = serving.models.resolve(call.model, grant.principal);
  const crosses = judgeModel(model, call.api);
  requireMatch(call);
  const request = poolRequest(grant, serving, call, crosses ? "score" : "embed");
  const most = capsFor(serving.caps, grant.principal.caps).poolingTokens;
  const reader = new Reader({ model, truncate: call.truncate, most, signal });
  const inputs = crosses ? await encodePairs(call, reader) : await encodeTexts(call, reader);
  const work = { model, request, inputs, meter: grant.meter, observer: serving.observerOf(model) };
  const { outputs, usage } = await pooled(work, signal);
  const scores = crosses ? outputs.map(({ values }) => values[0] ?? 0) : cosines(outputs, call.queries.length);
  return { model: model.names[0], scores, usage };
}

/** @returns whether the model reads both texts at once. @throws Fault invalid_request */
function judgeModel(model: ServedModel, api: string): boolean {
  const info = model.backend.model.pooling;
  if (info?.tasks.includes("score")) return true;
  if (info?.tasks.includes("embed")) return false;
  if (info !== undefined && info.classes > 1) throw invalid("model", `${api} API is only enabled for num_labels == 1.`);
  throw unsupported(api);
}

function requireMatch({ queries, documents, fields: [first, second] }: ScoreCall): void {
  if (queries.length === 0) throw invalid(first, `${first} must hold at least one text.`);
  if (documents.length === 0) throw invalid(second, `${second} must hold at least one text.`);
  if (queries.length > 1 && queries.length !== documents.length)
    throw invalid(first, "Input lengths must be either 1:1, 1:N or N:N");
}

async function encodePairs(call: ScoreCall, reader: Reader): Promise<readonly Int32Array[]> {
  const { queries, documents, fields, queryTokens, documentTokens, kwargs = {} } = call;
  const read = (at: number): Promise<Side> =>
    readSide(reader, queries[at] ?? "", named(fields[0], at, queries.length), queryTokens);
  const only = queries.length === 1 ? await read(0) : undefined;
  const pairs: Int32Array[] = [];
  for (const [at, text] of documents.entries()) {
    const field = named(fields[1], at, documents.length);
    const query = only ?? (await read(at));
    const document = await readSide(reader, text, field, documentTokens);
    const pair = await fitPair(reader, { query, document, field, kwargs });
    reader.count(pair.length, fields[1]);
    pairs.push(pair);
  }
  return pairs;
}

/** All queries, then all documents. */
async function encodeTexts(call: ScoreCall, reader: Reader): Promise<readonly Int32Array[]> {
  const { queries, documents, fields, queryTokens, documentTokens } = call;
  const inputs: Int32Array[] = [];
  for (const [field, texts, most] of [
    [fields[0], queries, queryTokens],
    [fields[1], documents, documentTokens],
  ] as const) {
    for (const [at, text] of texts.entries()) {
      const own = named(field, at, texts.length);
      const { tokens: kept } = await readSide(reader, text, own, most);
      const tokens = reader.fit(kept, own, true);
      reader.count(tokens.length, field);
      inputs.push(tokens);
    }
  }
  return inputs;
}

function named(field: string, at: number, count: number): string {
  return count === 1 ? field : `${field}.${at}`;
}

function cosines(outputs: readonly PoolOutput[], queries: number): number[] {
  return outputs.slice(queries).map(({ values }, at) => {
    const query = outputs[queries === 1 ? 0 : at];
    return query === undefined ? 0 : cosine(query.values, values);
  });
}

/** In double precision; 0 where one of them is. */
function cosine(a: Float32Array, b: Float32Array): number {
  let product = 0;
  let first = 0;
  let second = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    product += x * y;
    first += x * x;
    second += y * y;
  }
  return product / Math.max(Math.sqrt(first * second), 1e-12);
}
