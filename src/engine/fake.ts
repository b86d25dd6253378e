/**
 * A kernel without a model, for tests: the row after some tokens is a pure hash of exactly those tokens, so that
 * batch-invariance can be tested to the bit. It keeps every rule of the native kernel and can fail on command.
 *
 * Called by process.ts (init message `kernel: "fake"`) and by tests.
 */
import { writeFileSync } from "node:fs";
import { checkBlocks, checkPrefix } from "./batch-check.ts";
import { type Batch, type Kernel, KernelError, type KernelErrorCode, type KernelLimits, NO_ADAPTER } from "./kernel.ts";

/** Plain data, so that it can cross the process border. Forwards count from 1; "crash" aborts the process. */
export interface FakeScript extends Partial<KernelLimits> {
  readonly faults?: readonly { readonly forward: number; readonly fault: FakeFault }[];
  /** Any forward whose batch holds this token does the fault: a request that kills its engine. */
  readonly poison?: { readonly token: number; readonly fault: FakeFault };
  /** Cells in all, if fewer than slots × context: makes `full` reachable. */
  readonly cells?: number;
  /** Do not open at all, with this message. */
  readonly refuse?: string;
  /** Other weights: other rows after the same tokens. */
  readonly weights?: number;
  /** A file that the kernel makes when it opens; where it exists it does not open: there is one such kernel. */
  readonly claim?: string;
  /** Abort while opening, as GGML_ASSERT does. */
  readonly crashOnOpen?: boolean;
  /** Never finish opening. */
  readonly hangOnOpen?: boolean;
}

export type FakeFault = KernelErrorCode | "crash" | "hang" | "nan" | "throw";

/** The row after these tokens; overrides the hash. Shape of the result: [vocabularySize]. */
export type FakeRow = (tokens: readonly number[]) => ArrayLike<number>;

export const FAKE_LIMITS: KernelLimits = {
  vocabularySize: 64,
  contextPerSlot: 256,
  maxSequences: 8,
  maxBatchTokens: 64,
  endOfTurn: [2],
  prefillBlock: 1,
};

/** Added to a token that was computed as part of a prefill block, and for each adapter that computed it. */
const IN_BLOCK = 1 << 24;
const ADAPTER = 1 << 25;

function mix(hash: number, value: number): number {
  let mixed = Math.imul(hash ^ value, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca77);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

/** Fills `row` with logits in [-4, 4) that depend on the tokens alone. */
function hashRow(tokens: readonly number[], row: Float32Array, weights: number): void {
  let state = 1 + weights;
  for (const token of tokens) state = mix(state, token + 1);
  for (let index = 0; index < row.length; index++) row[index] = (mix(state, index) / 0x1_0000_0000) * 8 - 4;
}

export class FakeKernel implements Kernel {
  readonly limits: KernelLimits;
  readonly #script: FakeScript;
  readonly #row: FakeRow | undefined;
  readonly #slots: number[][];
  readonly #rows: Float32Array[] = [];
  readonly #adapters = new Set<number>();
  #forwards = 0;
  #closed = false;

  constructor(script: FakeScript = {}, row?: FakeRow) {
    const limits = { ...FAKE_LIMITS, ...script };
    const { vocabularySize, contextPerSlot, maxSequences, maxBatchTokens, endOfTurn, prefillBlock, loneFrom } = limits;
    this.limits = {
      ...{ vocabularySize, contextPerSlot, maxSequences, maxBatchTokens, endOfTurn, prefillBlock },
      ...(loneFrom === undefined ? {} : { loneFrom }),
    };
    this.#script = script;
    this.#row = row;
    this.#slots = Array.from({ length: maxSequences }, () => []);
  }

  forward(batch: Batch): readonly Float32Array[] {
    this.#checkOpen();
    this.#forwards++;
    const fault = this.#faultOf(batch);
    if (fault !== undefined && fault !== "nan") misbehave(fault);
    this.#check(batch);
    const rows = this.#compute(batch);
    if (fault === "nan") for (const row of rows) row[row.length >> 1] = Number.NaN;
    return rows;
  }

  truncate(slot: number, length: number): void {
    const tokens = this.#tokensOf(slot);
    checkPrefix(slot, length, tokens.length);
    tokens.length = length;
  }

  copy(from: number, to: number, length: number): void {
    const [source, target] = [this.#tokensOf(from), this.#tokensOf(to)];
    if (from === to) throw new KernelError("invalid", `slot ${from} is copied onto itself`);
    checkPrefix(from, length, source.length);
    target.splice(0, target.length, ...source.slice(0, length));
  }

  length(slot: number): number {
    return this.#tokensOf(slot).length;
  }

  readonly stateBytesPerToken = 4;

  save(slot: number): Uint8Array {
    return new Uint8Array(Int32Array.from(this.#tokensOf(slot)).buffer);
  }

  restore(slot: number, data: Uint8Array, length: number): void {
    const tokens = this.#tokensOf(slot);
    const saved = new Int32Array(Uint8Array.from(data).buffer);
    tokens.length = 0;
    if (saved.length !== length) throw new KernelError("failed", `${saved.length} tokens were saved, not ${length}`);
    tokens.push(...saved);
  }

  /** Token 32 + i stands for character 32 + i of ASCII; below and above there is no text. */
  pieces(): readonly (Uint8Array | undefined)[] {
    return Array.from({ length: this.limits.vocabularySize }, (_, token) =>
      token >= 32 && token < 127 ? Uint8Array.of(token) : undefined,
    );
  }

  /** A path that ends in `bad` is no adapter. */
  loadAdapter(adapter: number, path: string): void {
    this.#checkOpen();
    if (path.endsWith("bad")) throw new KernelError("invalid", "this GGUF is not an adapter");
    this.#adapters.add(adapter);
  }

  unloadAdapter(adapter: number): void {
    this.#adapters.delete(adapter);
  }

  close(): void {
    this.#closed = true;
  }

  #compute(batch: Batch): Float32Array[] {
    let used = 0;
    for (let at = 0; at < batch.count; at++) {
      const tokens = this.#slots[batch.slots[at] as number] as number[];
      const how = (batch.blocks[at] === 0 ? 0 : IN_BLOCK) + (batch.adapters[at] as number) * ADAPTER;
      tokens.push((batch.tokens[at] as number) + how);
      if (batch.outputs[at] === 0) continue;
      this.#rows[used] ??= new Float32Array(this.limits.vocabularySize);
      const row = this.#rows[used++] as Float32Array;
      if (this.#row === undefined) hashRow(tokens, row, this.#script.weights ?? 0);
      else row.set(this.#row(tokens.map((token) => token % IN_BLOCK)));
    }
    return this.#rows.slice(0, used);
  }

  #faultOf(batch: Batch): FakeFault | undefined {
    const scripted = this.#script.faults?.find(({ forward }) => forward === this.#forwards);
    if (scripted !== undefined) return scripted.fault;
    const { poison } = this.#script;
    return poison && batch.tokens.subarray(0, batch.count).includes(poison.token) ? poison.fault : undefined;
  }

  #check(batch: Batch): void {
    const { maxBatchTokens, vocabularySize, contextPerSlot } = this.limits;
    if (batch.count < 1 || batch.count > maxBatchTokens)
      throw new KernelError("invalid", `${batch.count} tokens in a batch`);
    let slot = -2; // so that slot -1 is looked up and refused
    let next = 0;
    for (let at = 0; at < batch.count; at++) {
      const here = batch.slots[at] as number;
      if (here < slot) throw new KernelError("invalid", `slot ${here} after ${slot}`);
      if (here !== slot) next = this.length(here);
      slot = here;
      const token = batch.tokens[at] as number;
      if (token < 0 || token >= vocabularySize) throw new KernelError("invalid", `token ${token}`);
      const adapter = batch.adapters[at] as number;
      if (adapter !== NO_ADAPTER && !this.#adapters.has(adapter))
        throw new KernelError("invalid", `adapter ${adapter}`);
      if (at > 0 && batch.slots[at - 1] === here && batch.adapters[at - 1] !== adapter)
        throw new KernelError("invalid", `slot ${here} has two adapters`);
      if (batch.positions[at] !== next)
        throw new KernelError("invalid", `position ${batch.positions[at]}, not ${next}`);
      if (++next > contextPerSlot) throw new KernelError("invalid", `slot ${slot} cannot hold ${next} tokens`);
    }
    checkBlocks(batch, this.limits.prefillBlock);
    const held = this.#slots.reduce((sum, tokens) => sum + tokens.length, 0);
    if (held + batch.count > (this.#script.cells ?? Infinity)) throw new KernelError("full", "no cells left");
  }

  #tokensOf(slot: number): number[] {
    this.#checkOpen();
    const tokens = this.#slots[slot];
    if (tokens === undefined) throw new KernelError("invalid", `slot ${slot}`);
    return tokens;
  }

  #checkOpen(): void {
    if (this.#closed) throw new KernelError("failed", "the kernel is closed");
  }
}

function misbehave(fault: Exclude<FakeFault, "nan">): void {
  if (fault === "crash") process.abort();
  if (fault === "throw") throw new Error("the fake kernel threw what no kernel should");
  if (fault === "hang") for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
  throw new KernelError(fault, `scripted: ${fault}`);
}

/** What process.ts opens. @throws KernelError when scripted to refuse */
export function openFakeKernel(script: FakeScript): Kernel {
  if (script.refuse !== undefined) throw new KernelError("failed", script.refuse);
  if (script.crashOnOpen) misbehave("crash");
  if (script.hangOnOpen) misbehave("hang");
  if (script.claim !== undefined) writeFileSync(script.claim, "", { flag: "wx" });
  return new FakeKernel(script);
}
