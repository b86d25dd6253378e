/**
 * A backend that says what a test tells it to. Tests only.
 */
import { type Backend, type BackendState, NO_STATS } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { FinishReason, GenerateRequest, GenerationEvent, PositionLogprobs, TokenLogprob } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import type { PoolRequest, PoolResult } from "#core/pool.ts";

export interface Script {
  /** Token ids that a request draws, cut at its budget. A byte-level tokenizer's ids are bytes. */
  readonly reply?: (request: GenerateRequest) => readonly number[];
  /** Tokens of one event. */
  readonly batch?: number;
  /** Ends the reply when drawn. */
  readonly endOfTurn?: number;
  /** Throws before the first event. */
  readonly refuse?: Fault;
  /** Throws after so many tokens. */
  readonly failAfter?: number;
  /** Never ends: repeats the reply until it is aborted. */
  readonly endless?: boolean;
  readonly model?: Partial<ModelInfo>;
}

export class ScriptedBackend implements Backend {
  readonly model: ModelInfo;
  readonly requests: GenerateRequest[] = [];
  /** Requests that have not ended. */
  open = 0;
  current: BackendState = "ready";
  private readonly script: Script;

  constructor(script: Script = {}) {
    this.script = script;
    this.model = {
      architecture: "fake",
      contextLength: 128,
      trainedContext: 128,
      vocabularySize: 260,
      parameters: 1,
      createdAt: 7,
      ...script.model,
    };
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    this.requests.push(request);
    if (this.script.refuse !== undefined) throw this.script.refuse;
    this.open++;
    try {
      yield* this.events(request, signal);
    } finally {
      this.open--;
    }
  }

  private async *events(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<GenerationEvent> {
    const { sampling } = request;
    const wantsPrompt = sampling.promptLogprobs !== undefined;
    yield {
      type: "prompt",
      cachedTokens: 1,
      ...(wantsPrompt
        ? { logprobs: Array.from(request.prompt, (token, i) => (i === 0 ? null : position(token))) }
        : {}),
    };
    let drawn = 0;
    for (;;) {
      for (const tokens of this.batches(request, drawn)) {
        await nextTurn(signal);
        if (drawn >= (this.script.failAfter ?? Number.POSITIVE_INFINITY))
          throw new Fault("engine_failed", "The engine died.");
        drawn += tokens.length;
        yield {
          type: "tokens",
          sample: 0,
          tokens,
          ...(sampling.logprobs === undefined ? {} : { logprobs: tokens.map(position) }),
        };
        const last = tokens.at(-1);
        if (last !== undefined && this.stops(last, request))
          return yield { type: "finish", sample: 0, reason: "stop", stopToken: last };
      }
      if (!this.script.endless || drawn >= sampling.maxTokens) break;
    }
    const reason: FinishReason = "length";
    yield { type: "finish", sample: 0, reason };
  }

  private stops(token: number, request: GenerateRequest): boolean {
    return (
      request.sampling.stopTokenIds.includes(token) || (token === this.script.endOfTurn && !request.sampling.ignoreEos)
    );
  }

  private *batches(request: GenerateRequest, from: number): Generator<readonly number[]> {
    const left = request.sampling.maxTokens - from;
    const tokens = (this.script.reply?.(request) ?? []).slice(0, left);
    const size = this.script.batch ?? 1;
    for (let at = 0; at < tokens.length; at += size) yield tokens.slice(at, at + size);
  }

  async pool(_request: PoolRequest, _signal: AbortSignal): Promise<PoolResult> {
    throw new Fault("invalid_request", "The script generates.");
  }

  state(): BackendState {
    return this.current;
  }

  stats() {
    return { ...NO_STATS, running: this.open };
  }

  async close(): Promise<void> {
    this.current = "stopped";
  }
}

/** @throws Fault cancelled, as the engine's stream does */
async function nextTurn(signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  if (signal.aborted) throw new Fault("cancelled", "The request was cancelled.");
}

function position(token: number): PositionLogprobs {
  const chosen: TokenLogprob = { token, logprob: -0.5, rank: 1 };
  return { chosen, top: [chosen, { token: (token + 1) % 256, logprob: -1.5, rank: 2 }] };
}
