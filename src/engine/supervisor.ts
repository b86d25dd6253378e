/**
 * One engine as the HTTP process sees it: requests over an engine process that may die at any time.
 *
 * States: starting → ready ⇄ restarting → stopped; `stalled` is `ready` while no step completes. When the process
 * ends, every open request fails at once with `engine_failed`, new ones get `engine_unavailable` until it is back;
 * it is started again for ever, with backoff. A process that makes no step for stallAfterMs + killAfterMs is killed.
 *
 * Invariants: an open request has one stream, one abort listener and its samples counted in `#samples`; all of them
 * go together in #forget. Made by fleet.ts, one an engine, which has judged the requests and bounds their number.
 */
import type { BackendState, BackendStats } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import type { PoolRequest, PoolResult } from "#core/pool.ts";
import { AdapterBook } from "./adapter-book.ts";
import { Backoff } from "./backoff.ts";
import type { EngineProcess, LaunchHandlers, LaunchOptions } from "./launcher.ts";
import { ACK_EVERY } from "./loop.ts";
import { EngineLost } from "./lost.ts";
import type { Command, KernelInit, OperatedMessage, StepMessage } from "./messages.ts";
import type { Operation, Outcome } from "./operations.ts";
import { type EngineCounters, type EngineOptions, launchOptions } from "./options.ts";
import { eventsOf } from "./packed.ts";
import { PendingOperations } from "./pending.ts";
import { aborted, checkPool, type Matches, PoolDesk } from "./pooling/desk.ts";
import type { FinishReport } from "./report.ts";
import { RequestStream } from "./stream.ts";
import { Totals } from "./totals.ts";
import { Watchdog } from "./watchdog.ts";
import { Workload } from "./workload.ts";

export type Launch = (options: LaunchOptions, handlers: LaunchHandlers, signal: AbortSignal) => Promise<EngineProcess>;

export class Supervisor {
  readonly #options: EngineOptions;
  readonly #index: number;
  readonly #onLost: () => void;
  readonly #launch: Launch;
  readonly #open = new Map<number, RequestStream>();
  readonly #work = new Workload();
  readonly #operations = new PendingOperations();
  readonly #idle: (() => void)[] = [];
  readonly #desk = new PoolDesk();
  readonly #totals = new Totals();
  readonly #adapters = new AdapterBook();
  readonly #watchdog: Watchdog;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  #model: ModelInfo;
  #kernel: KernelInit;
  /** Asleep or frozen: no steps are expected. A process that starts while asleep goes to sleep, too. */
  #still: "asleep" | "frozen" | undefined;
  #child: EngineProcess | undefined;
  #phase: Exclude<BackendState, "stalled"> = "starting";
  #requests = 0;
  #samples = 0;
  #paused = 0;
  #launching: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  /** @param index the engine's number among its like, for logs and hooks @param onLost its process has ended */
  constructor(options: EngineOptions, launch: Launch, index: number, onLost: () => void) {
    this.#options = options;
    this.#index = index;
    this.#onLost = onLost;
    this.#kernel = options.kernel;
    this.#launch = launch;
    this.#model = options.model;
    this.#backoff = new Backoff(options.restartAfterMs ?? 250);
    this.#watchdog = new Watchdog(options.stallAfterMs ?? 30_000, options.killAfterMs ?? 90_000, () =>
      this.kill("makes no steps"),
    );
  }

  get model(): ModelInfo {
    return this.#model;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** @throws EngineStartError */
  async start(): Promise<void> {
    await this.#launchChild();
  }

  generate(request: GenerateRequest, signal: AbortSignal): RequestStream {
    const child = this.#requireChild();
    const number = ++this.#requests;
    const stream = new RequestStream(request.samples, signal, {
      leave: () => {
        this.#forget(number, stream);
        this.#send({ type: "abort", request: number });
      },
      setPaused: (paused) => this.#setPaused(number, paused),
    });
    this.#open.set(number, stream);
    this.#work.add(number, request);
    this.#samples += request.samples;
    this.#watchdog.setBusy(this.#runnable);
    const { id: _, ...submission } = request;
    child.send({ type: "submit", request: number, ...submission });
    return stream;
  }

  async pool(request: PoolRequest, signal: AbortSignal): Promise<PoolResult> {
    const child = this.#requireChild();
    const info = checkPool(request, this.#model);
    const number = ++this.#requests;
    const result = this.#desk.open(number, request, signal, () => {
      this.#settled();
      this.#send({ type: "abort", request: number });
    });
    this.#watchdog.setBusy(this.#runnable);
    const tokens = request.inputs.reduce((sum, input) => sum + input.length, 0);
    this.#work.addPrompt(number, tokens);
    const { task, inputs, priority, share, useActivation, dimensions } = request;
    const options = {
      ...(share && { share }),
      ...(useActivation === undefined ? {} : { useActivation }),
      ...(dimensions && { dimensions }),
    };
    child.send({ type: "pool", request: number, task, inputs, priority, info, ...options });
    return result.finally(() => this.#work.promptDone(number));
  }

  /** @throws Fault invalid_request | engine_failed | engine_unavailable | draining */
  loadAdapter(adapter: number, path: string): Promise<void> {
    const child = this.#requireChild();
    return this.#adapters.load(adapter, path, (command) => child.send(command));
  }

  /** The next process loads it; this one has it, or there is none. */
  rememberAdapter(adapter: number, path: string): void {
    this.#adapters.remember(adapter, path);
  }

  /** Requests that use it go on to their end. */
  unloadAdapter(adapter: number): void {
    this.#adapters.unload(adapter, (command) => this.#send(command));
  }

  state(): BackendState {
    return this.#phase === "ready" && this.#watchdog.stalled ? "stalled" : this.#phase;
  }

  stats(): BackendStats {
    return this.#totals.stats(this.#sequences);
  }

  /** Sequences open here, and tokens of the prompts that are still to be computed. */
  get load(): { readonly sequences: number; readonly promptTokens: number } {
    return { sequences: this.#sequences, promptTokens: this.#work.promptTokens };
  }

  /** Ends open requests with finish reason `abort`, pooling ones with a fault; returns how many. */
  abortWhere(matches: Matches): number {
    const pooled = this.#desk.failWhere(matches, aborted);
    for (const number of pooled) this.#send({ type: "abort", request: number });
    this.#settled();
    const numbers = this.#work.matching(matches);
    for (const number of numbers) {
      const stream = this.#open.get(number) as RequestStream;
      this.#forget(number, stream);
      stream.finish("abort");
      this.#send({ type: "abort", request: number });
    }
    return numbers.length + pooled.length;
  }

  /** Resolves when no request is open. */
  idle(): Promise<void> {
    return this.#requestsOpen === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Gives up what is open: it may start again elsewhere. */
  abandon(): void {
    const lost = () => new EngineLost("the engine that worked on this request was taken away");
    for (const number of [...this.#open.keys()]) {
      this.#fail(number, lost());
      this.#send({ type: "abort", request: number });
    }
    this.#desk.failAll(lost);
  }

  /** @throws EngineLost when there is no process to ask, or it ends or stays silent for startTimeoutMs */
  operate(operation: Operation): Promise<Outcome> {
    const child = this.#phase === "ready" ? this.#child : undefined;
    if (child === undefined) return Promise.reject(new EngineLost("the engine is not running"));
    return this.#operations.add(
      (call) => child.send({ type: "operate", call, operation }),
      this.#startTimeoutMs,
      () => this.kill("does not answer an operation"),
    );
  }

  setStill(still: "asleep" | "frozen" | undefined): void {
    this.#still = still;
    this.#watchdog.setBusy(this.#runnable);
  }

  /** What the next process opens. */
  setKernel(kernel: KernelInit): void {
    this.#kernel = kernel;
  }

  /** Ends the process; it is started again. */
  kill(reason: string): void {
    this.#options.log?.("error", `engine ${reason}, killing it`, { pid: this.pid, engine: this.#index });
    this.#child?.kill();
  }

  /** A start that waits for its time begins at once; a process that makes no steps is ended first. */
  restartNow(): void {
    if (this.state() === "stalled") this.kill("is started again by an operator");
    this.#backoff.hurry();
  }

  counters(): EngineCounters {
    const timers = this.#watchdog.timers + this.#backoff.timers;
    return { requests: this.#requestsOpen, sequences: this.#sequences, paused: this.#paused, timers };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  get #runnable(): boolean {
    const open = this.#open.size > this.#paused || this.#desk.requests > 0;
    return this.#still === undefined && open;
  }

  get #sequences(): number {
    return this.#samples + this.#desk.inputs;
  }

  get #startTimeoutMs(): number {
    return this.#options.startTimeoutMs ?? 120_000;
  }

  #requireChild(): EngineProcess {
    if (this.#phase === "stopped") throw new Fault("draining", "the engine is shutting down");
    if (this.#phase === "ready" && this.#child !== undefined) return this.#child;
    const retryAfterMs = Math.max(1000, this.#backoff.remainingMs);
    throw new Fault("engine_unavailable", "the engine is starting, try again soon", { retryAfterMs });
  }

  #send(command: Command): void {
    this.#child?.send(command);
  }

  #setPaused(request: number, paused: boolean): void {
    this.#paused += paused ? 1 : -1;
    this.#watchdog.setBusy(this.#runnable);
    this.#send({ type: paused ? "pause" : "resume", request });
  }

  /** Ends the bookkeeping of a request: its stream has ended, by whatever way. */
  #forget(request: number, stream: RequestStream): void {
    if (!this.#open.delete(request)) return;
    this.#work.delete(request);
    this.#samples -= stream.samplesLeft;
    if (stream.paused) this.#paused--;
    this.#settled();
  }

  /** Something may have been the last of its kind. */
  #settled(): void {
    this.#watchdog.setBusy(this.#runnable);
    if (this.#requestsOpen === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  get #requestsOpen(): number {
    return this.#open.size + this.#desk.requests;
  }

  #onStep(message: StepMessage): void {
    this.#watchdog.progress();
    this.#backoff.progress();
    if (message.step % ACK_EVERY === 0) this.#send({ type: "ack", step: message.step });
    for (const { request } of message.prompts) this.#work.promptDone(request);
    for (const [request, event] of eventsOf(message, this.#index)) this.#open.get(request)?.push(event);
    for (const finish of message.finishes) this.#onFinish(finish);
    for (const pooled of message.pooled) if (this.#desk.settle(pooled)) this.#options.onSequence?.(pooled, this.#index);
    for (const { request, kind, message: text, detail } of message.failures) {
      this.#fail(request, new Fault(kind, text, detail === undefined ? {} : { detail }));
    }
    this.#settled();
    this.#countStep(message);
  }

  /** A message that only tells of an abort is no step. */
  #countStep({ gauges, tokens }: StepMessage): void {
    const { steps, promptTokens } = this.#totals.update(gauges);
    if (steps > 0) this.#options.onStep?.(gauges, promptTokens + tokens.length, this.#index);
  }

  #onFinish(finish: FinishReport): void {
    const { request, sample, reason, stopToken } = finish;
    const stream = this.#open.get(request);
    if (stream === undefined) return;
    stream.push({ type: "finish", sample, reason, ...(stopToken === undefined ? {} : { stopToken }) });
    this.#samples--;
    if (stream.samplesLeft === 0) this.#forget(request, stream);
    this.#options.onSequence?.(finish, this.#index);
  }

  #fail(request: number, fault: Fault): void {
    this.#desk.fail(request, fault);
    const stream = this.#open.get(request);
    if (stream === undefined) return;
    this.#forget(request, stream);
    stream.fail(fault);
  }

  #failAll(fault: () => Fault): void {
    for (const request of [...this.#open.keys()]) this.#fail(request, fault());
    this.#desk.failAll(fault);
    this.#operations.fail(fault);
    this.#settled();
  }

  async #launchChild(): Promise<void> {
    const kernel = this.#kernel;
    const { contextLength, log } = this.#options;
    const options = launchOptions(this.#options, kernel, this.#startTimeoutMs);
    const handlers = {
      onTried: () => this.#options.onTried?.(),
      onStep: (message: StepMessage) => this.#onStep(message),
      onOperated: (message: OperatedMessage) => this.#operations.answer(message),
      onAnswer: (ask: number, error: string | undefined) => this.#adapters.answer(ask, error),
      onExit: (reason: string) => this.#onExit(reason),
    };
    this.#child = await this.#launch(options, handlers, this.#closing.signal);
    const child = this.#child;
    const lost = await this.#adapters.restore((command) => child.send(command));
    if (this.#child !== child) return; // it ended meanwhile, and its exit has planned the next start
    for (const adapter of lost) log?.("error", "an adapter could not be loaded again", { adapter });
    const { contextPerSlot, vocabularySize } = this.#child.limits;
    const window = Math.min(contextLength, contextPerSlot);
    this.#model = { ...this.#options.model, contextLength: window, vocabularySize };
    if (this.#phase !== "stopped") this.#phase = "ready";
    // A new process is awake and steps; meanwhile other weights may have been wanted.
    if (kernel !== this.#kernel) this.kill("has old weights");
    else if (this.#still === "asleep") this.operate({ what: "sleep" }).catch(() => {});
    else this.setStill(undefined);
    log?.("info", "engine ready", { pid: this.#child.pid, contextLength: window, engine: this.#index });
  }

  #onExit(reason: string): void {
    this.#child = undefined;
    this.#totals.childEnded();
    this.#onLost();
    this.#adapters.ended();
    if (this.#phase === "stopped") return;
    this.#phase = "restarting";
    this.#options.log?.("error", "engine process ended", { reason, engine: this.#index });
    this.#failAll(() => new EngineLost("the engine failed while it worked on this request"));
    this.#restartLater();
  }

  #restartLater(): void {
    this.#backoff.schedule(() => {
      this.#launching = this.#launchChild().then(
        () => this.#totals.restarted(),
        (error: unknown) => {
          this.#options.log?.("error", "engine did not restart", { reason: String(error), engine: this.#index });
          if (this.#phase !== "stopped") this.#restartLater();
        },
      );
    });
  }

  async #close(): Promise<void> {
    this.#phase = "stopped";
    this.#failAll(() => new Fault("draining", "the server is shutting down"));
    this.#backoff.cancel();
    this.#watchdog.setBusy(false);
    this.#closing.abort();
    await this.#launching;
    const child = this.#child;
    if (child === undefined) return;
    child.send({ type: "close" });
    const timer = setTimeout(() => child.kill(), this.#options.closeAfterMs ?? 5000);
    await child.exited;
    clearTimeout(timer);
  }
}
