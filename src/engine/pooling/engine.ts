/**
 * The engine of a pooling model: takes the next batch of sequences, computes it, says each one's numbers.
 *
 * A step is one batch. Where a batch of several sequences goes wrong each is tried alone, so that only the request
 * whose sequence fails is failed. Nothing is kept between steps but the queue. Driven by loop.ts and by tests.
 */
import type { EngineLimits } from "#engine/engine.ts";
import { KernelError } from "#engine/kernel.ts";
import { type EngineGauges, emptyReport, NO_GAUGES, type StepReport } from "#engine/report.ts";
import type { Submission } from "#engine/requests.ts";
import type { StepRecorder } from "#engine/timeline.ts";
import { finish } from "./finish.ts";
import { type PoolingKernel, type PoolingOutput, problemOfTokens } from "./kernel.ts";
import { type Entry, PoolQueue } from "./queue.ts";
import type { PoolSubmission } from "./submission.ts";

const FAILED = "the engine could not run this request";

export class PoolingEngine {
  #kernel: PoolingKernel;
  readonly #bounds: { readonly maxSequences: number; readonly maxBatchTokens: number };
  readonly #contextLength: number;
  readonly #now: () => number;
  readonly #queue: PoolQueue;
  readonly #open = new Set<number>();
  #recorder: StepRecorder | undefined;
  #report: StepReport = emptyReport();
  #steps = 0;
  #promptTokens = 0;

  /** @param now monotonic seconds */
  constructor(kernel: PoolingKernel, limits: EngineLimits, now: () => number = () => performance.now() / 1000) {
    const { maxSequences, maxBatchTokens, contextPerSlot } = kernel.limits;
    this.#kernel = kernel;
    this.#contextLength = Math.min(limits.contextLength, contextPerSlot);
    this.#bounds = {
      maxSequences: Math.min(limits.maxNumSeqs, maxSequences),
      // A sequence of full length always fits.
      maxBatchTokens: Math.min(Math.max(limits.maxNumBatchedTokens, this.#contextLength), maxBatchTokens),
    };
    this.#queue = new PoolQueue(limits.schedulingPolicy === "priority");
    this.#now = now;
  }

  /** Queues a request. One that cannot run is refused in the next report. */
  pool(submission: PoolSubmission): void {
    const { request, inputs } = submission;
    const bounds = { ...this.#kernel.limits, contextPerSlot: this.#contextLength };
    const problem = this.#open.has(request)
      ? "the request is open already"
      : inputs.length === 0
        ? "a request has at least one input"
        : inputs.map((tokens) => problemOfTokens(tokens, bounds)).find((found) => found !== undefined);
    if (problem !== undefined) this.#report.failures.push({ request, kind: "invalid_request", message: problem });
    else {
      this.#open.add(request);
      this.#queue.add(submission, this.#now());
    }
  }

  /** A pooling model does not generate; the parent refuses such requests before they come here. */
  submit({ request }: Submission): void {
    this.#report.failures.push({ request, kind: "invalid_request", message: "this model does not generate" });
  }

  /** The parent has none to load: the app refuses adapters of a pooling model at start. @throws KernelError invalid */
  loadAdapter(): void {
    throw new KernelError("invalid", "adapters are for models that generate");
  }

  unloadAdapter(): void {}

  /** Drops a request; nothing more is said about it. Unknown ones are ignored: it may just have ended. */
  abort(request: number): void {
    this.#open.delete(request);
    this.#queue.drop(request);
  }

  /** A result is said once and whole: there is nothing to pause. */
  setPaused(): void {}

  /** One batch; undefined when there was nothing to do or say. @throws what the kernel should not throw */
  step(): StepReport | undefined {
    this.#recorder?.begin(0);
    const batch = this.#queue.peek(this.#bounds);
    if (batch.entries.length > 0) {
      this.#queue.take(batch);
      this.#recorder?.planned();
      this.#run(batch.entries, batch.output);
      this.#recorder?.computed(batch.entries.reduce((sum, { tokens }) => sum + tokens.length, 0));
      this.#recorder?.settled(batch.entries.length, 0);
      this.#steps++;
    } else if (this.#report.failures.length === 0) return undefined;
    const report = this.#report;
    this.#report = emptyReport();
    return report;
  }

  get gauges(): EngineGauges {
    const running = this.#queue.peek(this.#bounds).entries.length;
    const waiting = this.#queue.length - running;
    return { ...NO_GAUGES, running, waiting, steps: this.#steps, promptTokens: this.#promptTokens };
  }

  close(): void {
    this.#kernel.close();
  }

  /** Between steps nothing runs. */
  vacate(): void {}

  /** There are no prefixes. */
  resetPrefixCache(): void {}

  /** Between two steps. @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    const waiting = this.#queue.checkIntegrity();
    if (new Set(waiting).size !== waiting.length) throw new Error("a request waits twice");
    // What was taken is settled in the same step: who is open waits.
    if (waiting.length !== this.#open.size || waiting.some((request) => !this.#open.has(request)))
      throw new Error(`${this.#open.size} requests are open, ${waiting.length} wait`);
  }

  /** Until `adopt` there must be no step. */
  release(): void {
    this.#kernel.close();
  }

  /** Goes on with another kernel of the same limits. */
  adopt(kernel: PoolingKernel): void {
    this.#kernel = kernel;
  }

  setRecorder(recorder: StepRecorder | undefined): void {
    this.#recorder = recorder;
  }

  #run(entries: readonly Entry[], output: PoolingOutput): void {
    const started = this.#now();
    try {
      const tokens = entries.map((entry) => entry.tokens);
      const rows = this.#kernel.pool(tokens, output);
      entries.forEach((entry, at) => {
        this.#settle(entry, rows[at] as Float32Array, started);
      });
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (entries.length === 1) this.#fail(entries[0] as Entry, FAILED, `${error.code}: ${error.message}`);
      else for (const entry of entries) if (this.#open.has(requestOf(entry))) this.#run([entry], output);
    }
  }

  #settle(entry: Entry, row: Float32Array, started: number): void {
    const { submission, arrived } = entry.of;
    const { request, inputs } = submission;
    if (!this.#open.has(request)) return; // another sequence of it failed
    const output = finish(row, this.#kernel.limits.width, submission, submission.info);
    if (output === undefined) {
      this.#fail(entry, "the model gave numbers that are none");
      return;
    }
    this.#promptTokens += entry.tokens.length;
    this.#report.pooled.push({
      request,
      sample: entry.index,
      reason: "stop",
      promptTokens: entry.tokens.length,
      outputTokens: 0,
      queue: started - arrived,
      prefill: this.#now() - started,
      decode: 0,
      output,
    });
    if (entry.index === inputs.length - 1) this.#open.delete(request);
  }

  #fail(entry: Entry, message: string, detail?: string): void {
    const request = requestOf(entry);
    this.abort(request);
    this.#report.failures.push({
      request,
      kind: "engine_failed",
      message,
      ...(detail === undefined ? {} : { detail }),
    });
  }
}

function requestOf({ of }: Entry): number {
  return of.submission.request;
}
