/**
 * What placement.ts has to know of a kernel and its engine's limits. Called by engine.ts.
 */
import type { Kernel } from "./kernel.ts";
import type { EngineLimits } from "./limits.ts";
import type { PlacementOptions } from "./placement.ts";
import type { Spill } from "./spill/spill.ts";

/** A copy moves a whole slot: a prefix shorter than this share of it is computed again. */
const COPY_SHARE = 64;

/** What is read back from disk takes a fixed time too. */
const MIN_SPILL_TOKENS = 64;

export function placementOptions(kernel: Kernel, limits: EngineLimits, spill: Spill | undefined): PlacementOptions {
  const { enabled, blockSize, reuseGenerated } = limits.prefixCache;
  const { maxSequences, contextPerSlot, prefillBlock } = kernel.limits;
  const minCopyTokens = Math.max(blockSize, contextPerSlot / COPY_SHARE);
  const minTokens = Math.max(minCopyTokens, MIN_SPILL_TOKENS);
  const bytesPerToken = kernel.stateBytesPerToken;
  return {
    slots: maxSequences,
    blockSize,
    minCopyTokens,
    ...(spill === undefined ? {} : { spill: { catalog: spill.catalog, minTokens, bytesPerToken } }),
    retain: enabled,
    prefillBlock,
    reuseGenerated,
  };
}
