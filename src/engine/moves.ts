/**
 * Carries out in the kernel what placement.ts decided: copies between slots, and cuts.
 *
 * A move that fails costs its slot, not the engine: the slot is cleared, whoever sits there is computed again. Moves that
 * build on a lost slot fail in their turn, as the kernel refuses to copy or keep what is not there. Called by engine.ts.
 */
import { type Kernel, KernelError } from "./kernel.ts";
import type { Move } from "./placement.ts";

/** @returns the slots that hold nothing instead of what they should. @throws KernelError when one cannot be cleared */
export function carryOut(kernel: Kernel, moves: readonly Move[]): ReadonlySet<number> {
  const lost = new Set<number>();
  for (const { from, to, tokens } of moves) {
    lost.delete(to); // whatever it lacked, it is written anew
    try {
      if (from === to) kernel.truncate(to, tokens);
      else kernel.copy(from, to, tokens);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      kernel.truncate(to, 0);
      if (tokens > 0) lost.add(to);
    }
  }
  return lost;
}
