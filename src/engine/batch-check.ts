/**
 * Judges a batch before any native call sees it: GGML_ASSERT ends the process, and an out-of-range sequence id is
 * accepted silently by llama.cpp. Pure; used by the kernels.
 */
import { type Batch, KernelError, type KernelLimits, NO_ADAPTER } from "./kernel.ts";

/**
 * @param adapters those that are loaded
 * @param lengths tokens each slot holds, shape [maxSequences]
 * @returns the number of rows the batch asks for
 * @throws KernelError invalid
 */
export function checkBatch(
  batch: Batch,
  limits: KernelLimits,
  lengths: Int32Array,
  adapters: { has(adapter: number): boolean },
): number {
  const { count } = batch;
  if (!Number.isInteger(count) || count < 1) refuse("a batch holds at least one token");
  if (count > limits.maxBatchTokens || count > batch.tokens.length)
    refuse(`${count} tokens are more than a batch holds`);
  let outputs = 0;
  let slot = Number.NEGATIVE_INFINITY;
  let position = 0;
  for (let i = 0; i < count; i++) {
    const next = batch.slots[i] as number;
    if (next !== slot) {
      if (next < slot || next >= limits.maxSequences || next < 0)
        refuse(`slot ${next} is out of order or does not exist`);
      slot = next;
      position = lengths[slot] as number;
    }
    checkToken(batch, i, position, limits);
    checkAdapter(batch, i, adapters);
    position++;
    if (batch.outputs[i] !== 0) outputs++;
  }
  checkBlocks(batch, limits.prefillBlock);
  if (outputs > (limits.maxRows ?? count)) refuse(`${outputs} rows are more than a forward gives`);
  return outputs;
}

function checkToken(batch: Batch, i: number, position: number, limits: KernelLimits): void {
  const token = batch.tokens[i] as number;
  if (token < 0 || token >= limits.vocabularySize) refuse(`token ${token} is not in the vocabulary`);
  if (batch.positions[i] !== position)
    refuse(`position ${batch.positions[i]} does not go on where the slot ends (${position})`);
  if (position >= limits.contextPerSlot) refuse("the slot's context is full");
}

function checkAdapter(batch: Batch, i: number, adapters: { has(adapter: number): boolean }): void {
  const adapter = batch.adapters[i] as number;
  if (adapter !== NO_ADAPTER && !adapters.has(adapter)) refuse(`adapter ${adapter} is not loaded`);
  if (i > 0 && batch.slots[i - 1] === batch.slots[i] && batch.adapters[i - 1] !== adapter)
    refuse("a slot's tokens have different adapters");
}

/** @throws KernelError invalid: a slot's block tokens are not its first, or fewer than a block; or there are no blocks */
export function checkBlocks({ count, slots, blocks }: Batch, prefillBlock: number): void {
  for (let first = 0, at = 0; first < count; first = at) {
    let run = 0;
    for (; at < count && slots[at] === slots[first]; at++) {
      if (blocks[at] === 0) continue;
      if (run++ !== at - first) refuse("a block does not come first in its slot");
    }
    if (run > 0 && (prefillBlock === 1 || run < prefillBlock)) refuse(`${run} tokens are no block`);
  }
}

/** @throws KernelError invalid: a prefix of so many tokens is not there to be kept or copied */
export function checkPrefix(slot: number, length: number, held: number): void {
  if (!Number.isInteger(length) || length < 0 || length > held)
    refuse(`slot ${slot} holds ${held} tokens, not ${length}`);
}

function refuse(message: string): never {
  throw new KernelError("invalid", message);
}
