/**
 * Carries out in the kernel what placement.ts decided: copies between slots, cuts, and what goes to disk or comes back.
 *
 * A move that fails costs its slot, not the engine: the slot is cleared, whoever sits there is computed again. Moves that
 * build on a lost slot fail in their turn, as the kernel refuses to copy or keep what is not there. Called by engine.ts.
 */
import { type Kernel, KernelError } from "./kernel.ts";
import type { Move } from "./placement.ts";
import type { Spill } from "./spill/spill.ts";

/** @returns the slots that hold nothing instead of what they should. @throws KernelError when one cannot be cleared */
export function carryOut(kernel: Kernel, moves: readonly Move[], spill?: Spill): ReadonlySet<number> {
  const lost = new Set<number>();
  for (const move of moves) {
    if (move.kind === "spill") {
      if (lost.has(move.from)) spill?.catalog.drop(move.id);
      else save(kernel, move.id, move.from, spill);
      continue;
    }
    const { to, tokens } = move;
    lost.delete(to); // whatever it lacked, it is written anew
    try {
      if (move.kind === "restore") restore(kernel, move, spill);
      else if (move.from === to) kernel.truncate(to, tokens);
      else kernel.copy(move.from, to, tokens);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      kernel.truncate(to, 0);
      if (tokens > 0) lost.add(to);
    }
  }
  return lost;
}

/** What cannot be saved is forgotten: it would have been without a disk. */
function save(kernel: Kernel, id: number, from: number, spill: Spill | undefined): void {
  try {
    spill?.save(id, kernel.save(from));
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    spill?.catalog.drop(id);
  }
}

/** @throws KernelError failed: the slot holds nothing */
function restore(kernel: Kernel, { id, to, saved, tokens }: Extract<Move, { kind: "restore" }>, spill?: Spill): void {
  const data = spill?.load(id);
  if (data === undefined) throw new KernelError("failed", "what was spilled is gone");
  try {
    kernel.restore(to, data, saved);
  } catch (error) {
    spill?.catalog.drop(id);
    throw error;
  }
  kernel.truncate(to, tokens);
}
