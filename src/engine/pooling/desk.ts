/**
 * The HTTP process's side of pooling: requests that wait for their numbers, each one promise.
 *
 * Invariant: an open request has one promise, one abort listener and its inputs counted; they go together in #close.
 * Owned by supervisor.ts.
 */
import { Fault, invalid } from "#core/fault.ts";
import { type ModelInfo, tasksOf } from "#core/model.ts";
import type { PoolingInfo, PoolOutput, PoolRequest, PoolResult } from "#core/pool.ts";
import { problemOfTokens } from "./kernel.ts";
import type { PooledReport } from "./submission.ts";

/** Numbers of one answer, 64 MiB of them; 8192 tokens of 2048 numbers each. */
const MAX_NUMBERS = 1 << 24;

/** Whether an operator means this request, of either kind. */
export type Matches = (request: { readonly id: string; readonly callId?: string }) => boolean;

interface Open {
  readonly request: PoolRequest;
  readonly outputs: PoolOutput[];
  readonly promptTokens: number;
  /** Inputs without an output. */
  left: number;
  resolve(result: PoolResult): void;
  reject(fault: Fault): void;
  stopListening(): void;
}

export class PoolDesk {
  readonly #open = new Map<number, Open>();
  #inputs = 0;

  get requests(): number {
    return this.#open.size;
  }

  /** Inputs that wait or run. */
  get inputs(): number {
    return this.#inputs;
  }

  /** @param leave called when the signal ends it: the engine should drop it. @throws Fault cancelled */
  open(number: number, request: PoolRequest, signal: AbortSignal, leave: () => void): Promise<PoolResult> {
    if (signal.aborted) throw cancelled();
    const { inputs } = request;
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.fail(number, cancelled());
        leave();
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#open.set(number, {
        request,
        outputs: [],
        promptTokens: inputs.reduce((sum, tokens) => sum + tokens.length, 0),
        left: inputs.length,
        resolve,
        reject,
        stopListening: () => signal.removeEventListener("abort", onAbort),
      });
      this.#inputs += inputs.length;
    });
  }

  /** @returns whether somebody still wanted it */
  settle({ request, sample, output }: PooledReport): boolean {
    const open = this.#open.get(request);
    if (open === undefined) return false;
    open.outputs[sample] = output;
    open.left--;
    this.#inputs--;
    if (open.left === 0) this.#close(request)?.resolve({ outputs: open.outputs, promptTokens: open.promptTokens });
    return true;
  }

  fail(request: number, fault: Fault): void {
    this.#close(request)?.reject(fault);
  }

  /** @returns the numbers of those that it failed */
  failWhere(matches: Matches, fault: () => Fault): readonly number[] {
    const numbers = [...this.#open].filter(([, { request }]) => matches(request)).map(([number]) => number);
    for (const number of numbers) this.fail(number, fault());
    return numbers;
  }

  failAll(fault: () => Fault): void {
    for (const request of [...this.#open.keys()]) this.fail(request, fault());
  }

  #close(request: number): Open | undefined {
    const open = this.#open.get(request);
    if (open === undefined) return undefined;
    this.#open.delete(request);
    this.#inputs -= open.left;
    open.stopListening();
    return open;
  }
}

function cancelled(): Fault {
  return new Fault("cancelled", "the request was cancelled");
}

/** An operator ended it: numbers that are not there have no finish reason. */
export function aborted(): Fault {
  return new Fault("engine_unavailable", "the request was aborted, try again later", { retryAfterMs: 1000 });
}

/** @returns what the model can do. @throws Fault invalid_request naming the field at fault */
export function checkPool(request: PoolRequest, model: ModelInfo): PoolingInfo {
  const { task, inputs } = request;
  const { pooling: info, contextLength, vocabularySize } = model;
  if (!info?.tasks.includes(task))
    throw invalid("model", `the model does not support the task ${task}; it serves ${tasksOf(model).join(", ")}`);
  if (inputs.length === 0) throw invalid("input", "the input is empty");
  inputs.forEach((tokens, at) => {
    const problem = problemOfTokens(tokens, { contextPerSlot: contextLength, vocabularySize });
    if (problem !== undefined) throw invalid(inputs.length === 1 ? "input" : `input.${at}`, problem);
  });
  checkOptions(request, info);
  checkSize(request, info);
  return info;
}

function checkOptions({ task, dimensions, useActivation }: PoolRequest, info: PoolingInfo): void {
  const embeds = task === "embed" || task === "token_embed";
  if (!embeds && dimensions !== undefined) throw invalid("dimensions", `the task ${task} has no dimensions`);
  if (!embeds && info.head === "softmax" && useActivation === false)
    throw invalid("use_activation", "this model's head applies softmax itself; raw numbers cannot be had");
  if (dimensions !== undefined) checkDimensions(dimensions, info);
}

/** Also the operator's own default is checked by this, at start. @throws Fault invalid_request */
export function checkDimensions(dimensions: number, { embeddingSize, matryoshka }: PoolingInfo): void {
  if (!Number.isInteger(dimensions) || dimensions < 1) throw invalid("dimensions", "dimensions is at least 1");
  if (dimensions > embeddingSize)
    throw invalid("dimensions", `dimensions is at most ${embeddingSize}, the size of this model's embeddings`);
  if (dimensions === embeddingSize || matryoshka === "any" || matryoshka?.includes(dimensions)) return;
  throw invalid(
    "dimensions",
    matryoshka === undefined
      ? "this model does not support matryoshka representation: other output dimensions would be of no use"
      : `this model only supports the matryoshka dimensions ${matryoshka.join(", ")}`,
  );
}

function checkSize({ task, inputs, dimensions }: PoolRequest, info: PoolingInfo): void {
  const tokens = inputs.reduce((sum, input) => sum + input.length, 0);
  const rows = task === "token_embed" ? tokens : inputs.length;
  const width = task === "embed" || task === "token_embed" ? (dimensions ?? info.embeddingSize) : info.classes;
  if (rows * width > MAX_NUMBERS)
    throw invalid("input", `the answer would have ${rows * width} numbers, at most ${MAX_NUMBERS} are given at once`);
}
