/**
 * llama_batch in C memory, seen as typed arrays. Reused for every call. Used by kernel.ts and pooling-kernel.ts.
 */
import koffi from "koffi";
import type { Pointer } from "./library.ts";

/** Each token has one sequence id, so `seq_id[i]` points into one array. */
export class BatchBuffers {
  private readonly blocks: Pointer[] = [];
  private readonly tokens: Int32Array;
  private readonly positions: Int32Array;
  private readonly slots: Int32Array;
  private readonly outputs: Int8Array;
  private readonly fields: Record<string, unknown>;
  private count = 0;

  constructor(capacity: number) {
    const token = this.allocate("int32_t", capacity);
    const pos = this.allocate("int32_t", capacity);
    const slot = this.allocate("int32_t", capacity);
    const logits = this.allocate("int8_t", capacity);
    const counts = this.allocate("int32_t", capacity);
    const pointers = this.allocate("uint64_t", capacity);
    this.tokens = new Int32Array(koffi.view(token, capacity * 4));
    this.positions = new Int32Array(koffi.view(pos, capacity * 4));
    this.slots = new Int32Array(koffi.view(slot, capacity * 4));
    this.outputs = new Int8Array(koffi.view(logits, capacity));
    new Int32Array(koffi.view(counts, capacity * 4)).fill(1);
    const base = koffi.address(slot);
    const addresses = new BigUint64Array(koffi.view(pointers, capacity * 8));
    for (let i = 0; i < capacity; i++) addresses[i] = base + BigInt(i * 4);
    this.fields = { n_tokens: 0, token, embd: null, pos, n_seq_id: counts, seq_id: pointers, logits };
  }

  private allocate(type: string, count: number): Pointer {
    const block = koffi.alloc(type, count);
    this.blocks.push(block);
    return block;
  }

  clear(): void {
    this.count = 0;
  }

  add(token: number, position: number, slot: number, output: boolean): void {
    const at = this.count++;
    this.tokens[at] = token;
    this.positions[at] = position;
    this.slots[at] = slot;
    this.outputs[at] = output ? 1 : 0;
  }

  struct(): Record<string, unknown> {
    this.fields["n_tokens"] = this.count;
    return this.fields;
  }

  free(): void {
    for (const block of this.blocks.splice(0)) koffi.free(block);
  }
}
