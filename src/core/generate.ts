/**
 * The token level: what a backend is asked for and what it answers. No text, no HTTP, no tenants.
 *
 * One GenerateRequest makes `samples` sequences over the same prompt. Events of different samples interleave;
 * events of one sample come in order: `prompt` (once for the request, before any token) · `tokens`* · `finish`.
 */
import type { SamplingParams } from "./sampling.ts";

export interface GenerateRequest {
  /** Made by the server, never by the client: it keys engine state. */
  readonly id: string;
  /** The call as its tenant knows it (core/owned.ts); several requests may share it, and may be aborted by it. */
  readonly callId?: string;
  /** Shape [prompt length], ids in [0, vocabulary), at least one. */
  readonly prompt: Int32Array;
  readonly sampling: SamplingParams;
  /** Sequences to draw, ≥ 1. Sample i uses `seed + i` when a seed is given. */
  readonly samples: number;
  /** Lower runs first under priority scheduling. */
  readonly priority: number;
  /** Tenant's salt for the root of the prefix cache; two salts never share a block. */
  readonly cacheSalt?: string;
  /**
   * Made by the server: requests of one group share what was computed for their prompts, also where nothing is kept
   * for others. They have the same salt and adapter.
   */
  readonly group?: string;
  /** Whose share of the engine it draws on; requests without one share a share. */
  readonly share?: FairShare;
  /** The LoRA adapter that answers; the model itself if absent. */
  readonly adapter?: AdapterReference;
}

/** A loaded LoRA adapter. */
export interface AdapterReference {
  /** ≥ 1, never used again for another adapter. */
  readonly number: number;
  /** Names its blocks in the prefix cache: never the same for two contents. */
  readonly name: string;
}

/** A tenant as the engine sees it. Of two that both have work waiting, each gets tokens in proportion to its weight. */
export interface FairShare {
  readonly key: string;
  /** > 0; 1 is the usual one. */
  readonly weight: number;
}

/** One token's logprob and its rank among the whole vocabulary (1 = likeliest, 0 = not counted). Natural logarithm. */
export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
  readonly rank: number;
}

/**
 * The drawn (or given) token first, then the likeliest in falling order, or those that were asked for by id; the drawn
 * one may stand there again.
 */
export interface PositionLogprobs {
  readonly chosen: TokenLogprob;
  readonly top: readonly TokenLogprob[];
}

export type FinishReason = "stop" | "length" | "abort" | "error" | "repetition";

export type GenerationEvent =
  | {
      readonly type: "prompt";
      /** Prompt tokens whose work was found in the cache. */
      readonly cachedTokens: number;
      /** Number of the engine that works on it, where there are several. */
      readonly engine?: number;
      /** One entry a prompt position; the first is null. Present when asked for. */
      readonly logprobs?: readonly (PositionLogprobs | null)[];
    }
  | {
      readonly type: "tokens";
      readonly sample: number;
      readonly tokens: readonly number[];
      /** Same length as `tokens`, when asked for. */
      readonly logprobs?: readonly PositionLogprobs[];
    }
  | {
      readonly type: "finish";
      readonly sample: number;
      readonly reason: FinishReason;
      /** The stop or end-of-turn token that ended it; it is the last of the sequence's `tokens`. */
      readonly stopToken?: number;
    };
