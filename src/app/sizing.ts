/**
 * How many sequences of how many tokens the memory holds. Pure.
 *
 * Each slot has cells of its own for a whole window (split KV), so memory = slots × window × bytes a token.
 */
import type { ModelFacts } from "#engine/gguf/facts.ts";
import { StartupError } from "./startup-error.ts";

export interface SizingRequest {
  /** As set by the operator; absent: fit it. */
  readonly contextLength: number | undefined;
  readonly maxNumSeqs: number | undefined;
  /** Bytes for the KV cache. */
  readonly budget: number;
}

export interface Sizing {
  readonly contextLength: number;
  readonly maxNumSeqs: number;
}

export const DEFAULT_SEQUENCES = 32;
/** A window is only shortened by itself until so many sequences fit. */
const WANTED_SEQUENCES = 8;
/** llama.cpp rounds a slot's cells up to this. */
const CELL_BLOCK = 256;
const SHORTEST = 256;

/** @throws StartupError when what was asked for cannot be held, with the numbers to change */
export function fit(facts: ModelFacts, request: SizingRequest): Sizing {
  const contextLength = request.contextLength ?? fittedContext(facts, request);
  judgeTrained(contextLength, facts);
  const perSequence = cells(contextLength) * facts.kvBytesPerToken;
  const most = Math.floor(request.budget / perSequence);
  const maxNumSeqs = request.maxNumSeqs ?? Math.min(DEFAULT_SEQUENCES, Math.max(1, most));
  if (maxNumSeqs > most) {
    throw new StartupError(
      `${maxNumSeqs} sequences of ${contextLength} tokens need ${mebibytes(maxNumSeqs * perSequence)} MiB for the KV cache and ${mebibytes(request.budget)} MiB are given: lower --max-num-seqs or --max-model-len, or raise --kv-cache-memory-bytes`,
    );
  }
  return { contextLength, maxNumSeqs };
}

function fittedContext(facts: ModelFacts, request: SizingRequest): number {
  const sequences = Math.min(request.maxNumSeqs ?? WANTED_SEQUENCES, WANTED_SEQUENCES);
  const tokens = Math.floor(request.budget / (facts.kvBytesPerToken * sequences) / CELL_BLOCK) * CELL_BLOCK;
  return Math.min(facts.trainedContext, Math.max(SHORTEST, tokens));
}

function cells(tokens: number): number {
  return Math.ceil(tokens / CELL_BLOCK) * CELL_BLOCK;
}

export interface PoolingSizing extends Sizing {
  /** Tokens of a batch; no less than contextLength. */
  readonly maxNumBatchedTokens: number;
}

/** As in vLLM; a pooled sequence costs nothing once it is done. */
const POOLED_SEQUENCES = 256;
/** What a whole sequence costs grows with its square; a longer one is to be asked for. */
const WHOLE_CONTEXT = 8192;

/**
 * For models that pool. A causal one keeps K and V of a batch. One that sees whole sequences is computed in one
 * physical batch, for each token of which libllama keeps room for a vocabulary's logits, wanted or not.
 *
 * @throws StartupError when what was asked for cannot be held, with the numbers to change
 */
export function fitPooling(
  facts: ModelFacts,
  request: SizingRequest & { readonly maxNumBatchedTokens: number },
): PoolingSizing {
  const { causal, encoder, embeddingSize } = facts.pooling;
  const kept = encoder ? 0 : facts.kvBytesPerToken;
  const rows = causal ? 0 : FLOAT_BYTES * (facts.vocabularySize + embeddingSize);
  const most = Math.max(1, Math.floor(request.budget / Math.max(1, kept + rows)));
  const longest = Math.min(facts.trainedContext, causal ? Number.POSITIVE_INFINITY : WHOLE_CONTEXT, most);
  const contextLength = request.contextLength ?? longest;
  judgeTrained(contextLength, facts);
  if (contextLength > most) {
    throw new StartupError(
      `a sequence of ${contextLength} tokens needs ${mebibytes(contextLength * (kept + rows))} MiB to be pooled and ${mebibytes(request.budget)} MiB are given: lower --max-model-len, or raise --kv-cache-memory-bytes`,
    );
  }
  return {
    contextLength,
    maxNumSeqs: request.maxNumSeqs ?? POOLED_SEQUENCES,
    maxNumBatchedTokens: Math.max(contextLength, Math.min(request.maxNumBatchedTokens, most)),
  };
}

/** The model with its draft model, as far as memory is asked: both keep every sequence's window. */
export function withDraft(facts: ModelFacts, draft: ModelFacts | undefined): ModelFacts {
  if (draft === undefined) return facts;
  if (draft.vocabularySize !== facts.vocabularySize)
    throw new StartupError(
      `--speculative-config: the draft model has a vocabulary of ${draft.vocabularySize} tokens, the model one of ${facts.vocabularySize}`,
    );
  return { ...facts, kvBytesPerToken: facts.kvBytesPerToken + draft.kvBytesPerToken };
}

const FLOAT_BYTES = 4;

function judgeTrained(contextLength: number, facts: ModelFacts): void {
  if (contextLength <= facts.trainedContext) return;
  throw new StartupError(
    `--max-model-len ${contextLength} is more than the ${facts.trainedContext} tokens that the model was trained for`,
  );
}

function mebibytes(bytes: number): number {
  return Math.ceil(bytes / 2 ** 20);
}

/** Below so many parameters a step is over before a second thread would have woken. */
const THREADED_PARAMETERS = 30e6;

/**
 * Compute threads of one of so many engines. A thread that waits spins, so more than the work needs, or more in all than
 * there are processors, is slower, not faster. @param setting of all engines together; 0: fit it
 */
export function fitThreads(facts: ModelFacts, setting: number, processors: number, engines: number): number {
  if (setting === 0 && facts.parameters < THREADED_PARAMETERS) return 1;
  return Math.max(1, Math.floor((setting > 0 ? setting : processors) / engines));
}
