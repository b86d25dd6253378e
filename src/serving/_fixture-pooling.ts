/**
 * A served pooling model over a backend that does arithmetic: an input's vector is [its length, its first token, its
 * last]. Tests only.
 */
import { Fault } from "#core/fault.ts";
import type { PoolingInfo, PoolOutput, PoolRequest, PoolResult } from "#core/pool.ts";
import { fakeTokenizer } from "#prompt/_fake-tokenizer.ts";
import { type Fixture, fixture } from "./_fixture.ts";
import { ScriptedBackend } from "./_scripted-backend.ts";
import type { ServedModel } from "./models.ts";

export const EMBEDDER: PoolingInfo = {
  tasks: ["embed", "token_embed"],
  type: "mean",
  embeddingSize: 3,
  classes: 0,
  labels: [],
  head: "logits",
  matryoshka: undefined,
  defaults: { useActivation: true },
};

export interface PoolScript {
  readonly info?: Partial<PoolingInfo>;
  /** Tokens of a sequence at most; 16. */
  readonly window?: number;
  /** Inputs that wait and run at most. */
  readonly room?: number;
  /** Comes before the answer. */
  readonly before?: (request: PoolRequest) => Promise<void> | void;
}

/** Ids of the tokens that the model puts around a text. */
export const BEFORE = 256;
export const BETWEEN = 257;
export const AFTER = 258;

class PoolBackend extends ScriptedBackend {
  readonly pools: PoolRequest[] = [];
  /** Inputs at work, and the most that there were. */
  inputs = 0;
  peak = 0;
  readonly #script: PoolScript;

  constructor(script: PoolScript) {
    const pooling = { ...EMBEDDER, ...script.info };
    super({ model: { contextLength: script.window ?? 16, vocabularySize: 259, pooling } });
    this.#script = script;
  }

  override async pool(request: PoolRequest, signal: AbortSignal): Promise<PoolResult> {
    const { inputs } = request;
    if (this.inputs + inputs.length > (this.#script.room ?? Number.POSITIVE_INFINITY))
      throw new Fault("overloaded", "too many requests are waiting");
    this.inputs += inputs.length;
    this.peak = Math.max(this.peak, this.inputs);
    this.pools.push(request);
    try {
      await this.#script.before?.(request);
      await new Promise(setImmediate);
      if (signal.aborted) throw new Fault("cancelled", "the request was cancelled");
      return { outputs: inputs.map(vectorOf), promptTokens: inputs.reduce((sum, { length }) => sum + length, 0) };
    } finally {
      this.inputs -= inputs.length;
    }
  }
}

export function vectorOf(tokens: Int32Array): PoolOutput {
  return { values: Float32Array.of(tokens.length, tokens[0] ?? 0, tokens.at(-1) ?? 0), rows: 1, width: 3 };
}

export function poolFixture(
  script: PoolScript = {},
  changes: Partial<ServedModel> = {},
): Fixture & { readonly pooling: PoolBackend } {
  const pooling = new PoolBackend(script);
  const tokenizer = {
    ...fakeTokenizer({ specials: ["<s>", "<|>", "</s>"] }),
    brackets: { before: [BEFORE], between: [BETWEEN], after: [AFTER] },
  };
  return { ...fixture({}, { backend: pooling, tokenizer, ...changes }), pooling };
}
