/**
 * Cuts one forward into the calls that llama.cpp computes the same way whoever else is in the batch.
 *
 * With flash attention ggml's CPU code takes one of three ways, which round differently (ggml-cpu/ops.cpp,
 * ggml_compute_forward_flash_attn_ext_f16): tiles, where a sequence brings at least 64 tokens to a physical batch; row
 * by row, where it brings fewer; and split over threads, where one sequence alone brings one token to a long context.
 * llama_decode forms physical batches by what is in the call, so a neighbour could change the way. Hence calls of three
 * kinds, each of which has one way only:
 *  - blocks: BLOCK tokens a slot or more, equal among the call's slots, which fit one physical batch together. Which
 *    tokens share a tile, and where it starts, is of no matter: each row of it is added up by itself;
 *  - chunks: 2 … BLOCK-1 tokens a slot, equal among the call's slots;
 *  - singles: one token a slot. A slot without a neighbour in the call gets a companion token in the slot beside it,
 *    which is forgotten afterwards, so that it never is alone.
 * What different adapters compute is cut apart before. Pure. Called by kernel.ts only; which tokens come as blocks the
 * batch says.
 */
import type { Batch } from "#engine/kernel.ts";

/** GGML_FA_TILE_Q of ggml-cpu/common.h. */
export const BLOCK = 64;

/** Consecutive entries of a batch, all of one slot. */
export interface Piece {
  readonly slot: number;
  readonly from: number;
  readonly count: number;
}

/** All of a slot's. */
export interface Span extends Piece {
  /** The first so many are block tokens. */
  readonly body: number;
}

export interface Groups {
  /** Calls in the order in which they must be made: blocks, then chunks. */
  readonly calls: readonly (readonly Piece[])[];
  /** The one call with a token a slot; empty if there is none. */
  readonly singles: readonly Piece[];
}

/**
 * @param spans of one adapter, slots ascending; the body of each is none or at least BLOCK
 * @param physical tokens of a physical batch: at least two blocks, or as many as a forward
 */
export function groupForward(spans: readonly Span[], physical: number): Groups {
  const whole: Piece[] = [];
  const chunks: Piece[] = [];
  const singles: Piece[] = [];
  for (const { slot, from, count, body } of spans) {
    whole.push(...cut({ slot, from, count: body }, physical));
    // Cut evenly, so that no lone token is left over: it would come after its slot's other pieces, as a single.
    for (const piece of cut({ slot, from: from + body, count: count - body }, BLOCK - 1))
      (piece.count === 1 ? singles : chunks).push(piece);
  }
  return { calls: [...joinedRounds(whole, physical), ...joinedRounds(chunks, physical)], singles };
}

/** Pieces of at most so many tokens, as even as can be. */
function cut({ slot, from, count }: Piece, most: number): Piece[] {
  const parts: Piece[] = [];
  let at = 0;
  for (let left = Math.ceil(count / most); left > 0; left--) {
    const size = Math.ceil((count - at) / left);
    parts.push({ slot, from: from + at, count: size });
    at += size;
  }
  return parts;
}

/**
 * The spans of a batch, one a slot, by adapter: a llama_decode computes with one set of adapters.
 * @param first comes first if it is there: changing the adapter has its price
 */
export function spansOf(batch: Batch, first: number): ReadonlyMap<number, readonly Span[]> {
  const groups = new Map<number, Span[]>([[first, []]]);
  let from = 0;
  for (let at = 1; at <= batch.count; at++) {
    const slot = batch.slots[from] as number;
    if (at < batch.count && batch.slots[at] === slot) continue;
    const adapter = batch.adapters[from] as number;
    let body = 0;
    while (from + body < at && batch.blocks[from + body] !== 0) body++;
    const span = { slot, from, count: at - from, body };
    const spans = groups.get(adapter);
    if (spans === undefined) groups.set(adapter, [span]);
    else spans.push(span);
    from = at;
  }
  if (groups.get(first)?.length === 0) groups.delete(first);
  return groups;
}

/** Joins neighbouring slots with equal counts while they fit one physical batch. */
function joined(spans: readonly Piece[], physical: number): Piece[][] {
  const calls: Piece[][] = [];
  for (const span of spans) {
    const call = calls[calls.length - 1];
    const last = call?.[call.length - 1];
    const fits = call !== undefined && (call.length + 1) * span.count <= physical;
    if (call !== undefined && last !== undefined && fits && last.count === span.count && last.slot + 1 === span.slot)
      call.push(span);
    else calls.push([span]);
  }
  return calls;
}

/** The pieces of one slot stand in their order, so only first pieces join, and so on. */
function joinedRounds(spans: readonly Piece[], physical: number): Piece[][] {
  const rounds: Piece[][] = [];
  const seen = new Map<number, number>();
  for (const span of spans) {
    const round = seen.get(span.slot) ?? 0;
    seen.set(span.slot, round + 1);
    if (round === rounds.length) rounds.push([]);
    rounds[round]?.push(span);
  }
  return rounds.flatMap((round) => joined(round, physical));
}

/** Runs of neighbouring slots in a list of ascending slots. */
export function segmentsOf(slots: readonly number[]): number[][] {
  const segments: number[][] = [];
  for (const slot of slots) {
    const last = segments[segments.length - 1];
    if (last !== undefined && (last[last.length - 1] as number) + 1 === slot) last.push(slot);
    else segments.push([slot]);
  }
  return segments;
}
