/**
 * The pooling kernel: the narrow surface between queueing and numbers for models that do not generate.
 * Implementations: native/pooling-kernel.ts (libllama) and fake.ts (tests); kernel.contract.ts runs over both.
 *
 * It keeps nothing between calls. One thread, one caller (the engine process's loop); no call overlaps another.
 */
import type { PoolingType } from "#core/pool.ts";
import { KernelError } from "#engine/kernel.ts";

/** Facts and bounds, fixed once the kernel is open. Token counts in tokens. */
export interface PoolingLimits {
  readonly vocabularySize: number;
  /** Tokens of the longest sequence. */
  readonly contextPerSlot: number;
  readonly maxSequences: number;
  /** Tokens of one call, all sequences together; at least contextPerSlot. */
  readonly maxBatchTokens: number;
  /** What `sequence` gives; `none`: only `tokens` can be asked for. */
  readonly type: PoolingType;
  /** Numbers of a row: embeddingSize, or classes where the type is `rank`. */
  readonly width: number;
  readonly labels: readonly string[];
}

/** `sequence`: one row a sequence. `tokens`: one row a token, of width; not with a classifier head. */
export type PoolingOutput = "sequence" | "tokens";

export interface PoolingKernel {
  readonly limits: PoolingLimits;
  /**
   * Runs the sequences together.
   * @returns one array a sequence, shape [1 or its tokens, width], raw; the caller owns them
   * @throws KernelError; `invalid` before anything is computed
   */
  pool(sequences: readonly Int32Array[], output: PoolingOutput): readonly Float32Array[];
  close(): void;
}

/**
 * Judges a call before anything native sees it: GGML_ASSERT ends the process.
 * @throws KernelError invalid
 */
export function checkSequences(sequences: readonly Int32Array[], output: PoolingOutput, limits: PoolingLimits): void {
  if (sequences.length < 1 || sequences.length > limits.maxSequences)
    refuse(`${sequences.length} sequences, of at most ${limits.maxSequences}`);
  if (output === "sequence" && limits.type === "none") refuse("this model has no vector for a whole sequence");
  if (output === "tokens" && limits.type === "rank") refuse("a classifier head gives no vectors of tokens");
  let total = 0;
  for (const tokens of sequences) {
    const problem = problemOfTokens(tokens, limits);
    if (problem !== undefined) refuse(problem);
    total += tokens.length;
  }
  if (total > limits.maxBatchTokens) refuse(`${total} tokens are more than a batch holds`);
}

/** Why this sequence cannot be computed, or undefined. Pure; linear. */
export function problemOfTokens(
  tokens: Int32Array,
  limits: Pick<PoolingLimits, "vocabularySize" | "contextPerSlot">,
): string | undefined {
  if (tokens.length === 0) return "the input has no tokens";
  if (tokens.length > limits.contextPerSlot)
    return `the input has ${tokens.length} tokens, the context holds ${limits.contextPerSlot}`;
  const stray = tokens.find((token) => token < 0 || token >= limits.vocabularySize);
  return stray === undefined ? undefined : `token ${stray} is not in the vocabulary`;
}

function refuse(message: string): never {
  throw new KernelError("invalid", message);
}
