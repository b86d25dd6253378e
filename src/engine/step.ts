/**
 * Turns a plan into the kernel's batch, and keeps who asked for which row.
 *
 * Invariants: slots ascend, positions go on where the slot ends, and rows come back in the order of `uses`.
 * Called by engine.ts only.
 */
import type { Batch } from "./kernel.ts";
import { bodyOf } from "./prefill.ts";
import type { Plan } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";

/** One row of logits: whose, and of which position. */
export interface RowUse {
  readonly sequence: Sequence;
  readonly position: number;
  /** The position's token is a guess: the row is of use only if it came true. */
  readonly guess: number | undefined;
}

/**
 * Writes the plan into the batch; returns the uses of its rows, in batch order.
 * @param prefillBlock as KernelLimits
 */
export function assemble(plan: Plan, batch: Batch, prefillBlock: number): RowUse[] {
  const uses: RowUse[] = [];
  let at = 0;
  for (const [sequence, count] of [...plan].sort(([a], [b]) => a.slot - b.slot)) {
    const body = bodyOf(sequence.prompt.length, prefillBlock);
    for (let position = sequence.computed; position < sequence.computed + count; position++) {
      const wanted = sequence.wantsRow(position);
      batch.tokens[at] = sequence.tokenAt(position);
      batch.positions[at] = position;
      batch.slots[at] = sequence.slot;
      batch.adapters[at] = sequence.adapter;
      batch.blocks[at] = position < body ? 1 : 0;
      batch.outputs[at] = wanted ? 1 : 0;
      at++;
      const guess = position < sequence.length ? undefined : sequence.tokenAt(position);
      if (wanted) uses.push({ sequence, position, guess });
    }
  }
  batch.count = at;
  return uses;
}

/** The forward happened: the kernel now holds what the plan said. */
export function advance(plan: Plan): void {
  for (const [sequence, count] of plan) sequence.computed += count;
}
