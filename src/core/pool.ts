/**
 * Pooling at the token level: numbers out of a model instead of text. No text, no HTTP, no tenants.
 *
 * One PoolRequest has one or more sequences; each gives one PoolOutput, in the same order.
 */

import type { FairShare } from "./generate.ts";

/** How a sequence's token vectors become one: `rank` is the model's own classifier head, `none` keeps them all. */
export type PoolingType = "mean" | "cls" | "last" | "rank" | "none";

/** `score` is `classify` of a head that says one number; vLLM's names. */
export type PoolTask = "embed" | "token_embed" | "classify" | "score";

export const TASK_KINDS = ["generate", "embed", "token_embed", "classify", "score"] as const satisfies readonly (
  | "generate"
  | PoolTask
)[];
export type TaskKind = (typeof TASK_KINDS)[number];

export interface PoolRequest {
  /** Made by the server, never by the client. */
  readonly id: string;
  /** The call as its tenant knows it (core/owned.ts); several requests may share it, and may be aborted by it. */
  readonly callId?: string;
  readonly task: PoolTask;
  /** At least one; each at least one token, at most the context's length, ids in [0, vocabulary). */
  readonly inputs: readonly Int32Array[];
  /** Lower runs first under priority scheduling. */
  readonly priority: number;
  /** Whose share of the engine it draws on; requests without one share a share. */
  readonly share?: FairShare;
  /**
   * L2 normalisation of embeddings, softmax or sigmoid of classes; false gives what the model gave. Absent: as the
   * operator configured it, else true.
   */
  readonly useActivation?: boolean;
  /** Matryoshka: so many leading numbers of each vector. Embeddings only, and only where the model allows it. */
  readonly dimensions?: number;
}

/** Shape [rows, width]: one row, or one a token for `token_embed`. */
export interface PoolOutput {
  readonly values: Float32Array;
  readonly rows: number;
  readonly width: number;
}

export interface PoolResult {
  /** As many as inputs, in their order. */
  readonly outputs: readonly PoolOutput[];
  readonly promptTokens: number;
}

/** What a pooling model can do; fixed at start. */
export interface PoolingInfo {
  readonly tasks: readonly PoolTask[];
  readonly type: PoolingType;
  /** Numbers of an embedding. */
  readonly embeddingSize: number;
  /** Numbers of the classifier head; 0 where there is none. */
  readonly classes: number;
  /** The classes' names, as many as classes; empty where the model names none. */
  readonly labels: readonly string[];
  /**
   * The head's own last step: `softmax` where libllama applies it and raw numbers cannot be had; then `score` is the
   * first class's share.
   */
  readonly head: "logits" | "softmax";
  /** Which `dimensions` may be asked for: any, some, or none (undefined). */
  readonly matryoshka: "any" | readonly number[] | undefined;
  /** What stands where a request says nothing. */
  readonly defaults: { readonly useActivation: boolean; readonly dimensions?: number };
}
