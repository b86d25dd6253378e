/**
 * The engine: a set of sequences, a scheduler and a kernel. A step is schedule → forward → settle.
 *
 * Synchronous and alone on its thread: submissions, aborts and pauses come in between steps. A request whose row or
 * batch goes wrong fails by itself; the engine lives on unless the kernel cannot even clear a slot.
 * Invariants: checkIntegrity. Driven by loop.ts in the engine process, and by tests directly.
 */
import type { Constraint } from "#core/grammar.ts";
import { AdapterUse } from "./adapter-use.ts";
import { Counts } from "./counts.ts";
import { Grammars, type Matcher } from "./grammar/matcher.ts";
import { type Batch, createBatch, type Kernel, KernelError, NO_ADAPTER } from "./kernel.ts";
import { type EngineLimits, type EngineParts, MAX_PROMPT_ROWS } from "./limits.ts";
import { carryOut } from "./moves.ts";
import { Placement } from "./placement.ts";
import { placementOptions } from "./placement-options.ts";
import type { PoolSubmission } from "./pooling/submission.ts";
import { type ChainMaker, extendChain } from "./prefix/chain.ts";
import type { BlockHasher } from "./prefix/hash.ts";
import { accountOf, type EngineGauges, emptyReport, type FailureReport, type StepReport } from "./report.ts";
import { problemOf, Requests, type Submission } from "./requests.ts";
import { Sampler } from "./sampler/sampler.ts";
import { type Plan, Scheduler } from "./scheduler.ts";
import type { Sequence } from "./sequence.ts";
import { type Ending, endingOf, rowFailure, type StopRules, settlePrompt, settleToken } from "./settle.ts";
import { createSpeculation, freeGuesses, type Speculation } from "./speculation/proposer.ts";
import { Spill } from "./spill/spill.ts";
import { advance, assemble, type RowUse } from "./step.ts";
import type { StepRecorder } from "./timeline.ts";

export type { EngineLimits } from "./limits.ts";

export class Engine {
  #kernel: Kernel;
  readonly #placement: Placement;
  readonly #spill: Spill | undefined;
  readonly #chain: ChainMaker;
  readonly #prefixCaching: boolean;
  readonly #scheduler: Scheduler;
  readonly #sampler: Sampler;
  readonly #batch: Batch;
  readonly #rules: StopRules;
  readonly #requests = new Requests();
  readonly #adapters: AdapterUse;
  /** Made at the first grammar: the vocabulary in order takes memory. */
  #grammars: Grammars | undefined;
  #recorder: StepRecorder | undefined;
  #report: StepReport = emptyReport();
  readonly #counts = new Counts();
  readonly #now: () => number;
  readonly #limits: EngineLimits;
  #speculation: Speculation | undefined;

  /** @param hasher names the blocks of the prefix cache */
  constructor(kernel: Kernel, limits: EngineLimits, hasher: BlockHasher, { now, draft }: EngineParts = {}) {
    const { enabled, blockSize } = limits.prefixCache;
    const maxBatchTokens = Math.min(limits.maxNumBatchedTokens, kernel.limits.maxBatchTokens);
    const maxSequences = Math.min(limits.maxNumSeqs, kernel.limits.maxSequences, maxBatchTokens);
    const policy = limits.schedulingPolicy;
    this.#kernel = kernel;
    this.#limits = limits;
    this.#adapters = new AdapterUse(kernel);
    this.#chain = { hasher, blockSize };
    this.#prefixCaching = enabled;
    this.#spill = limits.spill === undefined || !enabled ? undefined : new Spill(limits.spill);
    this.#placement = new Placement(placementOptions(kernel, limits, this.#spill));
    this.#scheduler = new Scheduler(
      {
        maxSequences,
        maxBatchTokens,
        maxPromptRows: MAX_PROMPT_ROWS,
        maxPromptTokens: Math.max(limits.maxPromptTokens ?? maxBatchTokens, kernel.limits.prefillBlock),
        policy,
        maxAdapters: limits.maxAdapters ?? 1,
        prefillBlock: kernel.limits.prefillBlock,
      },
      this.#placement,
    );
    this.#sampler = new Sampler(kernel.limits.vocabularySize);
    this.#batch = createBatch(maxBatchTokens);
    this.#rules = {
      endOfTurn: new Set(kernel.limits.endOfTurn),
      contextLength: Math.min(limits.contextLength, kernel.limits.contextPerSlot),
    };
    this.#now = now ?? (() => performance.now() / 1000);
    this.#speculation = this.#speculate(kernel, draft);
  }

  /** Queues a request. One that cannot run is refused in the next report. */
  submit(submission: Submission): void {
    const { request } = submission;
    const { vocabularySize } = this.#kernel.limits;
    const adapter = submission.adapter?.number ?? NO_ADAPTER;
    const problem = this.#requests.has(request)
      ? "the request is open already"
      : !this.#adapters.takes(adapter)
        ? "the adapter is not loaded"
        : problemOf(submission, { vocabularySize, contextLength: this.#rules.contextLength });
    if (problem !== undefined) this.#report.failures.push({ request, kind: "invalid_request", message: problem });
    else {
      // Without the cache a prefix is shared within its request or group and nowhere else.
      const { group } = submission;
      const own = group === undefined ? `request ${request}` : `group ${group}`;
      const salt = this.#prefixCaching ? {} : { cacheSalt: own };
      this.#adapters.enter(submission.adapter, submission.samples);
      for (const sequence of this.#requests.open({ ...submission, ...salt }, this.#now())) this.#enqueue(sequence);
    }
  }

  /** A generating model does not pool; the parent refuses such requests before they come here. */
  pool({ request }: PoolSubmission): void {
    this.#report.failures.push({ request, kind: "invalid_request", message: "this model does not pool" });
  }

  /** @throws KernelError invalid, with a reason for people */
  loadAdapter(adapter: number, path: string): void {
    this.#adapters.load(adapter, path);
  }

  /** Takes no new request for it, and forgets it once the last one that uses it ended. Unknown ones are ignored. */
  unloadAdapter(adapter: number): void {
    this.#adapters.dismiss(adapter);
  }

  /** Forgets every prefix that no running sequence uses. */
  resetPrefixCache(): void {
    this.#placement.reset();
    this.#carryOut();
  }

  /** Sends all that runs back to the queue and forgets every prefix: the kernel holds nothing then. */
  vacate(): void {
    for (const sequence of this.#placement.running) this.#sendBack(sequence);
    this.resetPrefixCache();
  }

  /** Vacates and closes the kernels. Until `adopt` there must be no step. */
  release(): void {
    this.vacate();
    this.#adapters.detach();
    this.#speculation?.close();
    this.#kernel.close();
  }

  /** Goes on with other kernels, alike in limits and vocabulary. @throws KernelError: an adapter does not fit */
  adopt(kernel: Kernel, draft: Kernel | undefined): void {
    const speculation = this.#speculate(kernel, draft);
    this.#adapters.attach(kernel);
    this.#kernel = kernel;
    this.#speculation = speculation;
  }

  setRecorder(recorder: StepRecorder | undefined): void {
    this.#recorder = recorder;
  }

  /** Drops a request; nothing more is said about it. Unknown ones are ignored: it may just have ended. */
  abort(request: number): void {
    this.#close(request, true);
  }

  /** A slow reader: its sequences keep their slots and get no tokens until resumed. */
  setPaused(request: number, paused: boolean): void {
    for (const sequence of this.#requests.of(request)) sequence.paused = paused;
  }

  /** One iteration; undefined when there was nothing to do or say. @throws only if the kernel cannot go on */
  step(): StepReport | undefined {
    this.#recorder?.begin(this.#counts.totals.prefixHits);
    this.#speculation?.prepare(this.#placement.running);
    const plan = new Map(this.#scheduler.schedule());
    this.#placement.compact();
    const lost = this.#carryOut();
    for (const sequence of lost) plan.delete(sequence);
    if (plan.size > 0) {
      this.#recorder?.planned();
      const done = this.#forward(plan);
      this.#recorder?.computed(this.#batch.count);
      if (done !== undefined) this.#settle(done.uses, done.rows);
      for (const sequence of plan.keys()) this.#takeBackGuesses(sequence);
      this.#carryOut();
      this.#counts.steps++;
      this.#recorder?.settled(plan.size, this.#counts.totals.prefixHits);
    } else if (lost.length + this.#report.failures.length === 0) return undefined;
    const report = this.#report;
    this.#report = emptyReport();
    return report;
  }

  get gauges(): EngineGauges {
    const { contextPerSlot, maxSequences } = this.#kernel.limits;
    const adapters = this.#adapters.inUse(this.#placement.running.map(({ adapter }) => adapter));
    return {
      running: this.#placement.runningCount,
      waiting: this.#scheduler.waitingCount + this.#requests.heldCount,
      kvUsage: Counts.cells(this.#placement.running) / (contextPerSlot * maxSequences),
      ...this.#counts.totals,
      ...(adapters && { adapters }),
    };
  }

  get openRequests(): number {
    return this.#requests.count;
  }

  /** @throws Error naming the invariant that does not hold */
  checkIntegrity(): void {
    this.#scheduler.checkIntegrity();
    this.#placement.checkIntegrity();
    const open = this.#requests.sequenceCount - this.#requests.heldCount;
    const scheduled = this.#placement.runningCount + this.#scheduler.waitingCount;
    if (open !== scheduled) throw new Error(`${open} open sequences, ${scheduled} scheduled`);
    for (let slot = 0; slot < this.#kernel.limits.maxSequences; slot++) {
      const [length, expected] = [this.#kernel.length(slot), this.#placement.tokens(slot)];
      if (length !== expected) throw new Error(`slot ${slot} holds ${length}, not ${expected}`);
    }
  }

  spilled = (): Promise<void> | undefined => this.#spill?.settled(); // what went to disk is there; for tests
  close(): void {
    this.#speculation?.close();
    this.#spill?.close();
    this.#kernel.close();
  }

  /** Runs the plan; where the kernel is full the last in line give way, one by one. Undefined: nobody was left. */
  #forward(plan: Plan): { uses: RowUse[]; rows: readonly Float32Array[] } | undefined {
    const left = new Map(plan);
    while (left.size > 0) {
      const uses = assemble(left, this.#batch, this.#kernel.limits.prefillBlock);
      try {
        const rows = this.#kernel.forward(this.#batch);
        for (const sequence of left.keys()) this.#noteAdmission(sequence);
        this.#counts.work(left);
        advance(left);
        for (const sequence of left.keys()) this.#placement.advance(sequence);
        return { uses, rows };
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        if (error.code !== "full" || !this.#makeRoom(left)) this.#failPlan(left, error);
      }
    }
    return undefined;
  }

  /** Frees what is only kept, then sends the last in line back to the queue. False: the only one will never fit. */
  #makeRoom(left: Map<Sequence, number>): boolean {
    if (!this.#placement.evict()) {
      const victim = this.#scheduler.victim();
      if (victim === undefined || this.#placement.runningCount < 2) return false;
      left.delete(victim);
      this.#sendBack(victim);
    }
    this.#carryOut();
    return true;
  }

  #sendBack(sequence: Sequence): void {
    this.#placement.release(sequence, false);
    this.#speculation?.forget(sequence);
    this.#enqueue(sequence);
    this.#counts.preemptions++;
  }

  #speculate(kernel: Kernel, draft: Kernel | undefined): Speculation | undefined {
    const speculation = this.#limits.speculation ?? freeGuesses(kernel.limits);
    return speculation && createSpeculation(speculation, kernel, draft, this.#rules.contextLength);
  }

  #enqueue(sequence: Sequence): void {
    if (this.#prefixCaching || sequence.shared) extendChain(sequence, this.#chain);
    this.#scheduler.enqueue(sequence);
  }

  /** @returns the running sequences that lost what was computed and start again in the next step */
  #carryOut(): Sequence[] {
    const lost = carryOut(this.#kernel, this.#placement.takeMoves(), this.#spill);
    return [...lost].map((slot) => this.#placement.lose(slot)).filter((sequence) => sequence !== undefined);
  }

  #failPlan(left: Map<Sequence, number>, error: KernelError): void {
    const message = "the engine could not run this request";
    const detail = `${error.code}: ${error.message}`;
    for (const { request } of left.keys()) this.#fail({ request, kind: "engine_failed", message, detail });
    left.clear();
  }

  #settle(uses: readonly RowUse[], rows: readonly Float32Array[]): void {
    uses.forEach(({ sequence, position, guess }, at) => {
      if (sequence.state !== "running") return; // its request ended earlier in this step
      if (guess !== undefined && !this.#cameTrue(sequence, position, guess)) return;
      try {
        this.#settleRow(sequence, position, rows[at] as Float32Array);
      } catch (error) {
        this.#fail({ request: sequence.request, ...rowFailure(error) });
      }
    });
  }

  /** Whether what was drawn is what was guessed; then the next row is of use too. */
  #cameTrue(sequence: Sequence, position: number, guess: number): boolean {
    const last = sequence.length - 1;
    if (position !== last || sequence.tokenAt(last) !== guess) return false;
    this.#counts.accepted(position - (sequence.computed - sequence.draft.length));
    return true;
  }

  /** The kernel keeps what became text, and not the last token, which is computed in the next step. */
  #takeBackGuesses(sequence: Sequence): void {
    if (sequence.draft.length === 0) return;
    sequence.draft = [];
    if (sequence.state === "running" && sequence.computed >= sequence.length)
      this.#placement.cut(sequence, sequence.length - 1);
  }

  #settleRow(sequence: Sequence, position: number, row: Float32Array): void {
    if (position < sequence.length - 1) settlePrompt(this.#sampler, sequence, position, row);
    else {
      if (sequence.output.length === 0) this.#reportPrompt(sequence);
      // A request for no tokens ends with its prompt.
      const none: Ending = { reason: "length" };
      const ending = sequence.sampling.maxTokens === 0 ? none : this.#nextToken(sequence, row);
      if (ending !== undefined) this.#finish(sequence, ending);
    }
  }

  #nextToken(sequence: Sequence, row: Float32Array): Ending | undefined {
    const { request, sample } = sequence;
    const { endOfTurn } = this.#kernel.limits;
    const sampled = settleToken(this.#sampler, sequence, row, endOfTurn, (constraint) => this.#matcherOf(constraint));
    this.#report.tokens.push({ request, sample, ...sampled });
    this.#counts.generationTokens++;
    return endingOf(sequence, this.#rules);
  }

  #matcherOf(constraint: Constraint): Matcher {
    this.#grammars ??= new Grammars(this.#kernel.pieces(), this.#kernel.limits.endOfTurn);
    return this.#grammars.matcher(constraint);
  }

  /** The sample that comes first speaks for the request: mostly number 0, another one where that lost its slot. */
  #reportPrompt(sequence: Sequence): void {
    sequence.clock.firstToken = this.#now();
    if (!this.#requests.takeUnreported(sequence.request)) return;
    const logprobs = sequence.promptLogprobs;
    this.#report.prompts.push({
      request: sequence.request,
      cachedTokens: sequence.cached,
      ...(logprobs === undefined ? {} : { logprobs }),
    });
    for (const sibling of this.#requests.takeHeld(sequence.request)) this.#enqueue(sibling);
  }

  #finish(sequence: Sequence, ending: Ending): void {
    this.#requests.finish(sequence);
    this.#report.finishes.push({ ...ending, ...accountOf(sequence, this.#now()) });
    this.#drop(sequence, true);
  }

  /** Fails the whole request; its other samples end silently. */
  #fail(failure: FailureReport): void {
    if (!this.#requests.has(failure.request)) return;
    this.#close(failure.request, false);
    this.#report.failures.push(failure);
  }

  #close(request: number, valid: boolean): void {
    for (const sequence of this.#requests.of(request)) this.#drop(sequence, valid);
    this.#requests.close(request);
  }

  /** @param valid whether what was computed may serve others */
  #drop(sequence: Sequence, valid: boolean): void {
    this.#adapters.leave(sequence.adapter);
    if (sequence.state === "running") {
      if (valid) this.#takeBackGuesses(sequence);
      this.#speculation?.forget(sequence);
      if (valid && this.#prefixCaching) this.#nameOutput(sequence);
      this.#placement.release(sequence, valid);
      this.#carryOut();
    } else if (sequence.state === "waiting") this.#scheduler.dequeue(sequence);
    sequence.state = "finished";
  }

  /** The next turn of a conversation starts with this answer. */
  #nameOutput(sequence: Sequence): void {
    extendChain(sequence, this.#chain);
    this.#placement.advance(sequence);
  }

  /** Before the first step's work is added, `computed` is what was found. */
  #noteAdmission(sequence: Sequence): void {
    if (sequence.clock.admitted !== 0) return;
    sequence.clock.admitted = this.#now();
    sequence.cached = sequence.computed;
    if (this.#prefixCaching && sequence.promptLogprobs === undefined)
      this.#counts.lookup(sequence.prompt.length, sequence.cached);
  }
}
