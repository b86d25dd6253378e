/**
 * Which tokens of a prompt are computed in prefill blocks (KernelLimits.prefillBlock): its body. What comes after it,
 * the rest of the prompt and the answer, is computed token by token, however many come in one forward.
 *
 * The body follows from the prompt's length alone, so that a request gets the same numbers however its prompt is
 * chunked and whatever of it is found in the prefix cache. Its end is a multiple of half a block: tokens by themselves
 * are dear where the context is long, so few are left; but at least one is, and short questions after the same long text
 * mostly have bodies that end at the same place, so that what they share of the rest can be taken over too.
 * Pure. Called by placement.ts, scheduler.ts and step.ts.
 */

/** Tokens of the body: none, or at least a block. @param block as KernelLimits.prefillBlock; 1: there are no blocks */
export function bodyOf(prompt: number, block: number): number {
  if (block === 1) return 0;
  const grain = Math.ceil(block / 2);
  const body = prompt - 1 - ((prompt - 1) % grain);
  return body < block ? 0 : body;
}
