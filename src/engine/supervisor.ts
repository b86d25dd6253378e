/**
 * One engine as the HTTP process sees it: requests over an engine process that may die at any time.
 *
 * States: starting → ready ⇄ restarting → stopped; `stalled` is `ready` while no step completes. When the process
 * ends, every open request fails at once with `engine_failed`, new ones get `engine_unavailable` until it is back;
 * it is started again for ever, with backoff. A process that makes no step for stallAfterMs + killAfterMs is killed.
 *
 * Invariants: an open request has one stream, one abort listener and its samples counted in `#samples`; all of them
 * go together in #forget. At most maxNumQueuedReqs sequences are open. Made by fleet.ts, one an engine.
 */
import type { BackendState, BackendStats } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { GenerateRequest } from "#core/generate.ts";
import type { ModelInfo } from "#core/model.ts";
import { AdapterBook } from "./adapter-book.ts";
import { Backoff } from "./backoff.ts";
import { checkRequest } from "./check-request.ts";
import type { EngineProcess, LaunchHandlers, LaunchOptions } from "./launcher.ts";
import { limitsOf } from "./limits.ts";
import { ACK_EVERY } from "./loop.ts";
import { EngineLost } from "./lost.ts";
import type { Command, KernelInit, OperatedMessage, StepMessage } from "./messages.ts";
import type { Operation, Outcome } from "./operations.ts";
import type { EngineCounters, EngineOptions } from "./options.ts";
import { unpackLogprobs } from "./packed.ts";
import { PendingOperations } from "./pending.ts";
import type { FinishReport } from "./report.ts";
import { RequestStream } from "./stream.ts";
import { Totals } from "./totals.ts";
import { Watchdog } from "./watchdog.ts";

export type Launch = (options: LaunchOptions, handlers: LaunchHandlers, signal: AbortSignal) => Promise<EngineProcess>;

export class Supervisor {
  readonly #options: EngineOptions;
  readonly #index: number;
  readonly #onLost: () => void;
  readonly #launch: Launch;
  readonly #open = new Map<number, RequestStream>();
  /** What the open ones asked for. */
  readonly #asked = new Map<number, GenerateRequest>();
  /** Those whose prompt is not computed yet, and its tokens. */
  readonly #prompts = new Map<number, number>();
  readonly #operations = new PendingOperations();
  readonly #idle: (() => void)[] = [];
  readonly #totals = new Totals();
  readonly #adapters = new AdapterBook();
  readonly #watchdog: Watchdog;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  #model: ModelInfo;
  #kernel: KernelInit;
  /** Asleep or frozen: no steps are expected. A process that starts while asleep goes to sleep, too. */
  #still: "asleep" | "frozen" | undefined;
  #promptTokens = 0;
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
    this.#check(request);
    const number = ++this.#requests;
    const stream = new RequestStream(request.samples, signal, {
      leave: () => {
        this.#forget(number, stream);
        this.#send({ type: "abort", request: number });
      },
      setPaused: (paused) => this.#setPaused(number, paused),
    });
    this.#open.set(number, stream);
    this.#asked.set(number, request);
    this.#prompts.set(number, request.prompt.length);
    this.#promptTokens += request.prompt.length;
    this.#samples += request.samples;
    this.#watchdog.setBusy(this.#runnable);
    const { id: _, ...submission } = request;
    child.send({ type: "submit", request: number, ...submission });
    return stream;
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
    return this.#totals.stats(this.#samples);
  }

  /** Sequences open here, and tokens of the prompts that are still to be computed. */
  get load(): { readonly sequences: number; readonly promptTokens: number } {
    return { sequences: this.#samples, promptTokens: this.#promptTokens };
  }

  /** Ends open requests with finish reason `abort`; returns how many. */
  abortWhere(matches: (request: GenerateRequest) => boolean): number {
    const numbers = [...this.#asked].filter(([, request]) => matches(request)).map(([number]) => number);
    for (const number of numbers) {
      const stream = this.#open.get(number) as RequestStream;
      this.#forget(number, stream);
      stream.finish("abort");
      this.#send({ type: "abort", request: number });
    }
    return numbers.length;
  }

  /** Resolves when no request is open. */
  idle(): Promise<void> {
    return this.#open.size === 0 ? Promise.resolve() : new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Gives up what is open: it may start again elsewhere. */
  abandon(): void {
    for (const number of [...this.#open.keys()]) {
      this.#fail(number, new EngineLost("the engine that worked on this request was taken away"));
      this.#send({ type: "abort", request: number });
    }
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

  counters(): EngineCounters {
    const timers = this.#watchdog.timers + this.#backoff.timers;
    return { requests: this.#open.size, sequences: this.#samples, paused: this.#paused, timers };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  get #runnable(): boolean {
    return this.#still === undefined && this.#open.size > this.#paused;
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

  #check(request: GenerateRequest): void {
    const { samples } = request;
    checkRequest(request, this.#model);
    if (this.#samples + samples > (this.#options.maxNumQueuedReqs ?? 1024)) {
      throw new Fault("overloaded", "too many requests are waiting", { retryAfterMs: 1000 });
    }
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
    this.#asked.delete(request);
    this.#promptDone(request);
    this.#samples -= stream.samplesLeft;
    if (stream.paused) this.#paused--;
    this.#watchdog.setBusy(this.#runnable);
    if (this.#open.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #promptDone(request: number): void {
    this.#promptTokens -= this.#prompts.get(request) ?? 0;
    this.#prompts.delete(request);
  }

  #onStep(message: StepMessage): void {
    this.#watchdog.progress();
    this.#backoff.progress();
    if (message.step % ACK_EVERY === 0) this.#send({ type: "ack", step: message.step });
    for (const { request, cachedTokens, logprobs } of message.prompts) {
      this.#promptDone(request);
      const extra = logprobs === undefined ? {} : { logprobs: unpackLogprobs(logprobs) };
      this.#open.get(request)?.push({ type: "prompt", cachedTokens, engine: this.#index, ...extra });
    }
    this.#pushTokens(message);
    for (const finish of message.finishes) this.#onFinish(finish);
    for (const { request, kind, message: text, detail } of message.failures) {
      this.#fail(request, new Fault(kind, text, detail === undefined ? {} : { detail }));
    }
    this.#countStep(message);
  }

  /** A message that only tells of an abort is no step. */
  #countStep({ gauges, tokens }: StepMessage): void {
    const { steps, promptTokens } = this.#totals.update(gauges);
    if (steps > 0) this.#options.onStep?.(gauges, promptTokens + tokens.length, this.#index);
  }

  #pushTokens({ requests, samples, tokens, logprobs }: StepMessage): void {
    const positions = logprobs === undefined ? undefined : unpackLogprobs(logprobs);
    for (let at = 0; at < tokens.length; at++) {
      const position = positions?.[at];
      this.#open.get(requests[at] as number)?.push({
        type: "tokens",
        sample: samples[at] as number,
        tokens: [tokens[at] as number],
        ...(position ? { logprobs: [position] } : {}),
      });
    }
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
    const stream = this.#open.get(request);
    if (stream === undefined) return;
    this.#forget(request, stream);
    stream.fail(fault);
  }

  #failAll(fault: () => Fault): void {
    for (const request of [...this.#open.keys()]) this.#fail(request, fault());
    this.#operations.fail(fault);
  }

  async #launchChild(): Promise<void> {
    const kernel = this.#kernel;
    const { contextLength, env, execArgv, log } = this.#options;
    const options: LaunchOptions = {
      kernel,
      ...(this.#options.draft === undefined ? {} : { draft: this.#options.draft }),
      limits: limitsOf(this.#options),
      startTimeoutMs: this.#startTimeoutMs,
      ...(env === undefined ? {} : { env }),
      ...(execArgv === undefined ? {} : { execArgv }),
      ...(log === undefined ? {} : { log }),
    };
    const handlers = {
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
