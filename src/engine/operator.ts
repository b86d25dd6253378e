/**
 * Carries out operations in the engine process: freeze, sleep, other weights, recording. The loop does not step meanwhile.
 *
 * Invariant: the kernel that the engine has is open unless asleep, and has the limits and the vocabulary of the first
 * one, so that nothing that was made from them (sequences, grammars, the tokenizer on the other side) goes wrong.
 * Called by loop.ts, one operation at a time.
 */
import { createHash } from "node:crypto";
import type { KernelInit } from "./messages.ts";
import type { Operation, Outcome } from "./operations.ts";
import { StepRecorder } from "./timeline.ts";

const DONE: Outcome = { done: true };
const SAME_SHAPE = "the model has another shape or another vocabulary than the one that is served";

/** A kernel of either kind, as far as it matters here. */
interface AnyKernel {
  readonly limits: object;
  pieces?(): readonly (Uint8Array | undefined)[];
  close(): void;
}

/** An engine of either kind. */
interface Operable {
  readonly gauges: { readonly running: number };
  vacate(): void;
  resetPrefixCache(): void;
  release(): void;
  setRecorder(recorder: StepRecorder | undefined): void;
}

export interface OperatorParts<K extends AnyKernel> {
  readonly engine: Operable;
  readonly kernel: K;
  readonly init: KernelInit;
  /** @throws Error for people */
  readonly open: (init: KernelInit) => Promise<K>;
  /** The engine goes on with this one. @throws Error for people: it cannot */
  readonly adopt: (kernel: K) => Promise<void>;
}

export class Operator<K extends AnyKernel> {
  readonly #parts: OperatorParts<K>;
  readonly #engine: Operable;
  #init: KernelInit;
  #kernel: K;
  #frozen = false;
  #asleep = false;
  /** Of the first kernel; made when it is first needed, since it reads the whole vocabulary. */
  #shape: string | undefined;
  #recorder: StepRecorder | undefined;

  constructor(parts: OperatorParts<K>) {
    this.#parts = parts;
    this.#engine = parts.engine;
    this.#kernel = parts.kernel;
    this.#init = parts.init;
  }

  /** Whether no step may be made. */
  get still(): boolean {
    return this.#frozen || this.#asleep;
  }

  /** @throws only where no kernel is left to work with: the process has to end */
  async perform(operation: Operation): Promise<Outcome> {
    switch (operation.what) {
      case "freeze":
      case "thaw":
        this.#frozen = operation.what === "freeze";
        return DONE;
      case "reset":
        return this.#reset(operation.running);
      case "sleep":
        return this.#sleep();
      case "wake":
        return this.#wake();
      case "swap":
        return this.#swap(operation.kernel);
      case "record":
        this.#record(new StepRecorder(operation.steps));
        return DONE;
      case "stop-recording": {
        const timeline = this.#recorder?.timeline();
        this.#record(undefined);
        return timeline === undefined ? DONE : { done: true, timeline };
      }
    }
  }

  #record(recorder: StepRecorder | undefined): void {
    this.#recorder = recorder;
    this.#engine.setRecorder(recorder);
  }

  #reset(running: boolean): Outcome {
    if (this.#asleep) return DONE;
    if (running) this.#engine.vacate();
    else if (this.#engine.gauges.running > 0) return { done: false, message: "sequences are running" };
    else this.#engine.resetPrefixCache();
    return DONE;
  }

  #sleep(): Outcome {
    if (this.#asleep) return DONE;
    this.#release();
    this.#asleep = true;
    return DONE;
  }

  async #wake(): Promise<Outcome> {
    if (this.#asleep) {
      const problem = await this.#adopt(this.#init);
      if (problem !== undefined) return { done: false, message: problem };
    }
    this.#asleep = false;
    this.#frozen = false;
    return DONE;
  }

  /** One at a time: memory may not hold two. What cannot be used gives way to what was there. */
  async #swap(init: KernelInit): Promise<Outcome> {
    if (this.#asleep) return { done: false, message: "the engine is asleep" };
    this.#release();
    const problem = await this.#adopt(init);
    if (problem === undefined) return DONE;
    const worse = await this.#adopt(this.#init);
    if (worse !== undefined) throw new Error(`neither the new nor the old weights can be read: ${worse}`);
    return { done: false, message: problem };
  }

  #release(): void {
    this.#shape ??= shapeOf(this.#kernel);
    this.#engine.release();
  }

  /** The engine goes on with this kernel, or what stands against it; then nothing stays open. */
  async #adopt(init: KernelInit): Promise<string | undefined> {
    let kernel: K | undefined;
    try {
      kernel = await this.#parts.open(init);
      if (shapeOf(kernel) !== this.#shape) throw new Error(SAME_SHAPE);
      await this.#parts.adopt(kernel);
    } catch (error) {
      kernel?.close();
      return error instanceof Error ? error.message : String(error);
    }
    this.#kernel = kernel;
    this.#init = init;
    return undefined;
  }
}

/** A digest of the limits and of what each token stands for. */
function shapeOf(kernel: AnyKernel): string {
  const digest = createHash("sha256").update(JSON.stringify(kernel.limits));
  for (const piece of kernel.pieces?.() ?? []) {
    digest.update(piece === undefined ? "-" : `${piece.length}:`);
    if (piece !== undefined) digest.update(piece);
  }
  return digest.digest("hex");
}
