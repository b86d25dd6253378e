/**
 * What an engine may use, and how it shares it: settings that cross the process border.
 */
import type { Kernel } from "./kernel.ts";
import type { PrefixCacheOptions } from "./prefix/hash.ts";
import type { SchedulingPolicy } from "./scheduler.ts";
import type { SpeculationOptions } from "./speculation/proposer.ts";
import type { SpillOptions } from "./spill/spill.ts";

/** Rows of prompt logprobs in one step: at a vocabulary of 150k each costs about a millisecond. */
export const MAX_PROMPT_ROWS = 64;

export interface EngineLimits {
  /** Sequences that run at once; the kernel's own bound may be lower. */
  readonly maxNumSeqs: number;
  /** Token budget of a step; the kernel's own bound may be lower. */
  readonly maxNumBatchedTokens: number;
  /** Prompt tokens in a step in which somebody decodes, so that prompts make nobody wait long. Absent: no bound. */
  readonly maxPromptTokens?: number;
  /** Tokens that a sequence may hold; the kernel's own bound may be lower. */
  readonly contextLength: number;
  readonly schedulingPolicy: SchedulingPolicy;
  readonly prefixCache: PrefixCacheOptions;
  /** Adapters that compute in one step at most, each with a forward of its own. Default 1. */
  readonly maxAdapters?: number;
  /** Where prefixes go that no slot can keep; nowhere if absent. */
  readonly spill?: SpillOptions;
  /** Speculative decoding; none if absent. */
  readonly speculation?: SpeculationOptions;
}

/** What an engine is made with besides its limits; nothing of it crosses the border. */
export interface EngineParts {
  /** Monotonic seconds. */
  readonly now?: () => number;
  /** The kernel of a smaller model, for speculation by one. */
  readonly draft?: Kernel;
}

/** Those of them that cross the border, and nothing else that the options may have. */
export function limitsOf(options: EngineLimits): EngineLimits {
  const { maxNumSeqs, maxNumBatchedTokens, contextLength, schedulingPolicy, prefixCache } = options;
  const { maxAdapters, speculation, spill, maxPromptTokens } = options;
  return {
    ...{ maxNumSeqs, maxNumBatchedTokens, contextLength, schedulingPolicy, prefixCache },
    ...(maxAdapters === undefined ? {} : { maxAdapters }),
    ...(speculation === undefined ? {} : { speculation }),
    ...(spill === undefined ? {} : { spill }),
    ...(maxPromptTokens === undefined ? {} : { maxPromptTokens }),
  };
}
