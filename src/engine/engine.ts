/**
 * The engine: a set of sequences, a scheduler and a kernel. A step is schedule → forward → settle.
 *
 * Synchronous and alone on its thread: submissions, aborts and pauses come in between steps. A request whose row or
 * batch goes wrong fails by itself; the engine lives on unless the kernel cannot even clear a slot.
 * Invariants: checkIntegrity. Driven by loop.ts in the engine process, and by tests directly.
 */
import { type Batch, createBatch, type Kernel, KernelError } from "./kernel.ts";
import { type EngineGauges, emptyReport, type FailureReport, type FinishReport, type StepReport } from "./report.ts";
import { problemOf, Requests, type Submission } from "./requests.ts";
import { Sampler, SamplingError } from "./sampler/sampler.ts";
import { type Plan, Scheduler, type SchedulingPolicy } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import { type Ending, endingOf, type StopRules, settlePrompt, settleToken } from "./settle.ts";
import { advance, assemble, type RowUse } from "./step.ts";

/** Rows of prompt logprobs in one step: at a vocabulary of 150k each costs about a millisecond. */
const MAX_PROMPT_ROWS = 64;

/** A request for no tokens ends with its prompt. */
const NO_TOKENS: Ending = { reason: "length" };

export interface EngineLimits {
  /** Sequences that run at once; the kernel's own bound may be lower. */
  readonly maxNumSeqs: number;
  /** Token budget of a step; the kernel's own bound may be lower. */
  readonly maxNumBatchedTokens: number;
  /** Tokens that a sequence may hold; the kernel's own bound may be lower. */
  readonly contextLength: number;
  readonly schedulingPolicy: SchedulingPolicy;
}

export class Engine {
  readonly #kernel: Kernel;
  readonly #scheduler: Scheduler;
  readonly #sampler: Sampler;
  readonly #batch: Batch;
  readonly #rules: StopRules;
  readonly #requests = new Requests();
  readonly #now: () => number;
  #report: StepReport = emptyReport();
  #steps = 0;
  #promptTokens = 0;
  #generationTokens = 0;
  #preemptions = 0;

  /** @param now monotonic seconds */
  constructor(kernel: Kernel, limits: EngineLimits, now: () => number = () => performance.now() / 1000) {
    const maxBatchTokens = Math.min(limits.maxNumBatchedTokens, kernel.limits.maxBatchTokens);
    const maxSequences = Math.min(limits.maxNumSeqs, kernel.limits.maxSequences, maxBatchTokens);
    const policy = limits.schedulingPolicy;
    this.#kernel = kernel;
    this.#scheduler = new Scheduler({ maxSequences, maxBatchTokens, maxPromptRows: MAX_PROMPT_ROWS, policy });
    this.#sampler = new Sampler(kernel.limits.vocabularySize);
    this.#batch = createBatch(maxBatchTokens);
    this.#rules = {
      endOfTurn: new Set(kernel.limits.endOfTurn),
      contextLength: Math.min(limits.contextLength, kernel.limits.contextPerSlot),
    };
    this.#now = now;
  }

  /** Queues a request. One that cannot run is refused in the next report. */
  submit(submission: Submission): void {
    const { request } = submission;
    const { vocabularySize } = this.#kernel.limits;
    const problem = this.#requests.has(request)
      ? "the request is open already"
      : problemOf(submission, { vocabularySize, contextLength: this.#rules.contextLength });
    if (problem !== undefined) this.#report.failures.push({ request, kind: "invalid_request", message: problem });
    else for (const sequence of this.#requests.open(submission, this.#now())) this.#scheduler.enqueue(sequence);
  }

  /** Drops a request; nothing more is said about it. Unknown ones are ignored: it may just have ended. */
  abort(request: number): void {
    for (const sequence of this.#requests.of(request)) this.#drop(sequence);
    this.#requests.close(request);
  }

  /** A slow reader: its sequences keep their slots and get no tokens until resumed. */
  setPaused(request: number, paused: boolean): void {
    for (const sequence of this.#requests.of(request)) sequence.paused = paused;
  }

  /** One iteration; undefined when there was nothing to do or say. @throws only if the kernel cannot go on */
  step(): StepReport | undefined {
    const plan = this.#scheduler.schedule();
    if (plan.size > 0) {
      const done = this.#forward(plan);
      if (done !== undefined) this.#settle(done.uses, done.rows);
      this.#steps++;
    } else if (this.#report.failures.length === 0) return undefined;
    const report = this.#report;
    this.#report = emptyReport();
    return report;
  }

  get gauges(): EngineGauges {
    const { contextPerSlot, maxSequences } = this.#kernel.limits;
    let cells = 0;
    for (const sequence of this.#scheduler.running) cells += sequence.computed;
    return {
      running: this.#scheduler.runningCount,
      waiting: this.#scheduler.waitingCount + this.#requests.heldCount,
      kvUsage: cells / (contextPerSlot * maxSequences),
      steps: this.#steps,
      promptTokens: this.#promptTokens,
      generationTokens: this.#generationTokens,
      preemptions: this.#preemptions,
    };
  }

  get openRequests(): number {
    return this.#requests.count;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity();
    const { runningCount, waitingCount, running } = this.#scheduler;
    const open = this.#requests.sequenceCount - this.#requests.heldCount;
    const scheduled = runningCount + waitingCount;
    if (open !== scheduled) throw new Error(`${open} open sequences, ${scheduled} scheduled`);
    const held = new Map(running.map((sequence) => [sequence.slot, sequence.computed]));
    for (let slot = 0; slot < this.#kernel.limits.maxSequences; slot++) {
      const length = this.#kernel.length(slot);
      if (length !== (held.get(slot) ?? 0)) throw new Error(`slot ${slot} holds ${length}, not ${held.get(slot) ?? 0}`);
    }
  }

  close(): void {
    this.#kernel.close();
  }

  /** Runs the plan; where the kernel is full the last in line give way, one by one. Undefined: nobody was left. */
  #forward(plan: Plan): { uses: RowUse[]; rows: readonly Float32Array[] } | undefined {
    const left = new Map(plan);
    while (left.size > 0) {
      const uses = assemble(left, this.#batch);
      try {
        const rows = this.#kernel.forward(this.#batch);
        this.#countPrompt(left);
        advance(left);
        return { uses, rows };
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        if (error.code !== "full" || !this.#makeRoom(left)) this.#failPlan(left, error);
      }
    }
    return undefined;
  }

  /** Sends the last in line back to the queue, its work lost. False when only one is running: it will never fit. */
  #makeRoom(left: Map<Sequence, number>): boolean {
    const victim = this.#scheduler.victim();
    if (victim === undefined || this.#scheduler.runningCount < 2) return false;
    left.delete(victim);
    this.#kernel.clear(this.#scheduler.release(victim));
    this.#scheduler.enqueue(victim);
    this.#preemptions++;
    return true;
  }

  #failPlan(left: Map<Sequence, number>, error: KernelError): void {
    const message = "the engine could not run this request";
    const detail = `${error.code}: ${error.message}`;
    for (const { request } of left.keys()) this.#fail({ request, kind: "engine_failed", message, detail });
    left.clear();
  }

  #settle(uses: readonly RowUse[], rows: readonly Float32Array[]): void {
    uses.forEach(({ sequence, position }, at) => {
      if (sequence.state !== "running") return; // its request failed earlier in this step
      try {
        this.#settleRow(sequence, position, rows[at] as Float32Array);
      } catch (error) {
        if (!(error instanceof SamplingError)) throw error;
        const kind = error.code === "masked" ? "invalid_request" : "engine_failed";
        this.#fail({ request: sequence.request, kind, message: error.message });
      }
    });
  }

  #settleRow(sequence: Sequence, position: number, row: Float32Array): void {
    if (position < sequence.length - 1) settlePrompt(this.#sampler, sequence, position, row);
    else {
      if (sequence.output.length === 0) this.#reportPrompt(sequence);
      const ending = sequence.sampling.maxTokens === 0 ? NO_TOKENS : this.#nextToken(sequence, row);
      if (ending !== undefined) this.#finish(sequence, ending);
    }
  }

  #nextToken(sequence: Sequence, row: Float32Array): Ending | undefined {
    const { request, sample } = sequence;
    const sampled = settleToken(this.#sampler, sequence, row, this.#kernel.limits.endOfTurn);
    this.#report.tokens.push({ request, sample, ...sampled });
    this.#generationTokens++;
    return endingOf(sequence, this.#rules);
  }

  /** The first sample speaks for the request: it is never served after its siblings, so no token precedes this. */
  #reportPrompt(sequence: Sequence): void {
    sequence.clock.firstToken = this.#now();
    if (sequence.sample !== 0) return;
    const logprobs = sequence.promptLogprobs;
    this.#report.prompts.push({
      request: sequence.request,
      cachedTokens: 0,
      ...(logprobs === undefined ? {} : { logprobs }),
    });
    for (const sibling of this.#requests.takeHeld(sequence.request)) this.#scheduler.enqueue(sibling);
  }

  #finish(sequence: Sequence, ending: Ending): void {
    this.#requests.finish(sequence);
    this.#report.finishes.push({ ...ending, ...this.#account(sequence) });
    this.#drop(sequence);
  }

  #account({ request, sample, prompt, output, clock }: Sequence): Omit<FinishReport, "reason"> {
    return {
      request,
      sample,
      promptTokens: prompt.length,
      outputTokens: output.length,
      queue: clock.admitted - clock.arrived,
      prefill: clock.firstToken - clock.admitted,
      decode: this.#now() - clock.firstToken,
    };
  }

  /** Fails the whole request; its other samples end silently. */
  #fail(failure: FailureReport): void {
    if (!this.#requests.has(failure.request)) return;
    this.abort(failure.request);
    this.#report.failures.push(failure);
  }

  #drop(sequence: Sequence): void {
    if (sequence.state === "running") this.#kernel.clear(this.#scheduler.release(sequence));
    else if (sequence.state === "waiting") this.#scheduler.dequeue(sequence);
    sequence.state = "finished";
  }

  #countPrompt(plan: Plan): void {
    for (const [sequence, count] of plan) {
      if (sequence.clock.admitted === 0) sequence.clock.admitted = this.#now();
      const left = sequence.prompt.length - sequence.computed;
      if (sequence.output.length === 0) this.#promptTokens += Math.min(count, left);
    }
  }
}
