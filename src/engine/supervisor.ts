/**
 * The engine as the HTTP process sees it: a Backend over an engine process that may die at any time.
 *
 * States: starting → ready ⇄ restarting → stopped; `stalled` is `ready` while no step completes. When the process
 * ends, every open request fails at once with `engine_failed`, new ones get `engine_unavailable` until it is back;
 * it is started again for ever, with backoff. A process that makes no step for stallAfterMs + killAfterMs is killed.
 *
 * Invariants: an open request has one stream, one abort listener and its samples counted in `#samples`; all of them
 * go together in #forget. At most maxNumQueuedReqs sequences are open. Made by launcher.ts.
 */
import type { BackendState, BackendStats } from "#core/backend.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { GenerateRequest, GenerationEvent } from "#core/generate.ts";
import { type ModelInfo, tasksOf } from "#core/model.ts";
import type { PoolRequest, PoolResult } from "#core/pool.ts";
import { AdapterBook } from "./adapter-book.ts";
import { Backoff } from "./backoff.ts";
import type { EngineLimits } from "./engine.ts";
import type { EngineProcess, LaunchHandlers, LaunchOptions } from "./launcher.ts";
import { ACK_EVERY } from "./loop.ts";
import type { Command, StepMessage } from "./messages.ts";
import type { EngineCounters, EngineHandle, EngineOptions } from "./options.ts";
import { unpackLogprobs } from "./packed.ts";
import { checkPool, PoolDesk } from "./pooling/desk.ts";
import type { FinishReport } from "./report.ts";
import { RequestStream } from "./stream.ts";
import { Totals } from "./totals.ts";
import { Watchdog } from "./watchdog.ts";

type Launch = (options: LaunchOptions, handlers: LaunchHandlers, signal: AbortSignal) => Promise<EngineProcess>;

export class Supervisor implements EngineHandle {
  readonly #options: EngineOptions;
  readonly #launch: Launch;
  readonly #open = new Map<number, RequestStream>();
  readonly #desk = new PoolDesk();
  readonly #totals = new Totals();
  readonly #adapters = new AdapterBook();
  readonly #watchdog: Watchdog;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  #model: ModelInfo;
  #child: EngineProcess | undefined;
  #phase: Exclude<BackendState, "stalled"> = "starting";
  #requests = 0;
  #samples = 0;
  #paused = 0;
  #launching: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  constructor(options: EngineOptions, launch: Launch) {
    this.#options = options;
    this.#launch = launch;
    this.#model = options.model;
    this.#backoff = new Backoff(options.restartAfterMs ?? 250);
    this.#watchdog = new Watchdog(options.stallAfterMs ?? 30_000, options.killAfterMs ?? 90_000, () =>
      this.#killStalled(),
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

  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerationEvent> {
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
    this.#samples += request.samples;
    this.#watchdog.setBusy(this.#runnable);
    const { id: _, ...submission } = request;
    child.send({ type: "submit", request: number, ...submission });
    return stream;
  }

  async pool(request: PoolRequest, signal: AbortSignal): Promise<PoolResult> {
    const child = this.#requireChild();
    const info = checkPool(request, this.#model);
    this.#checkRoom(request.inputs.length);
    const number = ++this.#requests;
    const result = this.#desk.open(number, request, signal, () => {
      this.#watchdog.setBusy(this.#runnable);
      this.#send({ type: "abort", request: number });
    });
    this.#watchdog.setBusy(this.#runnable);
    const { task, inputs, priority, useActivation, dimensions } = request;
    const options = { ...(useActivation === undefined ? {} : { useActivation }), ...(dimensions && { dimensions }) };
    child.send({ type: "pool", request: number, task, inputs, priority, info, ...options });
    return result;
  }

  /** @throws Fault invalid_request | engine_failed | engine_unavailable | draining */
  loadAdapter(adapter: number, path: string): Promise<void> {
    const child = this.#requireChild();
    return this.#adapters.load(adapter, path, (command) => child.send(command));
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

  counters(): EngineCounters {
    const timers = this.#watchdog.timers + this.#backoff.timers;
    const requests = this.#open.size + this.#desk.requests;
    return { requests, sequences: this.#sequences, paused: this.#paused, timers };
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  get #runnable(): boolean {
    return this.#open.size > this.#paused || this.#desk.requests > 0;
  }

  get #sequences(): number {
    return this.#samples + this.#desk.inputs;
  }

  #requireChild(): EngineProcess {
    if (this.#phase === "stopped") throw new Fault("draining", "the engine is shutting down");
    if (this.#phase === "ready" && this.#child !== undefined) return this.#child;
    const retryAfterMs = Math.max(1000, this.#backoff.remainingMs);
    throw new Fault("engine_unavailable", "the engine is starting, try again soon", { retryAfterMs });
  }

  #check({ prompt, samples }: GenerateRequest): void {
    const { contextLength, vocabularySize } = this.#model;
    const tasks = tasksOf(this.#model);
    if (!tasks.includes("generate"))
      throw invalid("model", `the model does not generate; it serves ${tasks.join(", ")}`);
    if (prompt.length === 0) throw invalid("prompt", "the prompt is empty");
    if (prompt.length > contextLength) {
      throw invalid("prompt", `the prompt has ${prompt.length} tokens, the context holds ${contextLength}`);
    }
    for (const token of prompt) {
      if (token < 0 || token >= vocabularySize) throw invalid("prompt", `token ${token} is not in the vocabulary`);
    }
    if (!Number.isInteger(samples) || samples < 1) throw invalid("n", "n is at least 1");
    this.#checkRoom(samples);
  }

  #checkRoom(sequences: number): void {
    if (this.#sequences + sequences > (this.#options.maxNumQueuedReqs ?? 1024)) {
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
    this.#samples -= stream.samplesLeft;
    if (stream.paused) this.#paused--;
    this.#watchdog.setBusy(this.#runnable);
  }

  #onStep(message: StepMessage): void {
    this.#watchdog.progress();
    this.#backoff.progress();
    this.#totals.update(message.gauges);
    if (message.step % ACK_EVERY === 0) this.#send({ type: "ack", step: message.step });
    for (const { request, cachedTokens, logprobs } of message.prompts) {
      const extra = logprobs === undefined ? {} : { logprobs: unpackLogprobs(logprobs) };
      this.#open.get(request)?.push({ type: "prompt", cachedTokens, ...extra });
    }
    this.#pushTokens(message);
    for (const finish of message.finishes) this.#onFinish(finish);
    for (const pooled of message.pooled) if (this.#desk.settle(pooled)) this.#options.onSequence?.(pooled);
    for (const { request, kind, message: text, detail } of message.failures) {
      this.#fail(request, new Fault(kind, text, detail === undefined ? {} : { detail }));
    }
    if (this.#desk.requests === 0) this.#watchdog.setBusy(this.#runnable);
    const pooledTokens = message.pooled.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
    this.#options.onStep?.(message.gauges, message.tokens.length + pooledTokens);
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
    this.#options.onSequence?.(finish);
  }

  #fail(request: number, fault: Fault): void {
    this.#desk.fail(request, fault);
    const stream = this.#open.get(request);
    if (stream === undefined) return;
    this.#forget(request, stream);
    stream.fail(fault);
  }

  #failAll(kind: "engine_failed" | "draining", message: string): void {
    for (const request of [...this.#open.keys()]) this.#fail(request, new Fault(kind, message));
    this.#desk.failAll(() => new Fault(kind, message));
    this.#watchdog.setBusy(this.#runnable);
  }

  async #launchChild(): Promise<void> {
    const { kernel, contextLength, env, execArgv, log } = this.#options;
    const options: LaunchOptions = {
      kernel,
      ...(this.#options.draft === undefined ? {} : { draft: this.#options.draft }),
      limits: limitsOf(this.#options),
      startTimeoutMs: this.#options.startTimeoutMs ?? 120_000,
      ...(env === undefined ? {} : { env }),
      ...(execArgv === undefined ? {} : { execArgv }),
      ...(log === undefined ? {} : { log }),
    };
    const handlers = {
      onStep: (message: StepMessage) => this.#onStep(message),
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
    log?.("info", "engine ready", { pid: this.#child.pid, contextLength: window });
  }

  #onExit(reason: string): void {
    this.#child = undefined;
    this.#totals.childEnded();
    this.#adapters.ended();
    if (this.#phase === "stopped") return;
    this.#phase = "restarting";
    this.#options.log?.("error", "engine process ended", { reason });
    this.#failAll("engine_failed", "the engine failed while it worked on this request");
    this.#restartLater();
  }

  #restartLater(): void {
    this.#backoff.schedule(() => {
      this.#launching = this.#launchChild().then(
        () => this.#totals.restarted(),
        (error: unknown) => {
          this.#options.log?.("error", "engine did not restart", { reason: String(error) });
          if (this.#phase !== "stopped") this.#restartLater();
        },
      );
    });
  }

  #killStalled(): void {
    this.#options.log?.("error", "engine makes no steps, killing it", { pid: this.pid });
    this.#child?.kill();
  }

  async #close(): Promise<void> {
    this.#phase = "stopped";
    this.#failAll("draining", "the server is shutting down");
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

function limitsOf(options: EngineOptions): EngineLimits {
  const { maxNumSeqs, maxNumBatchedTokens, contextLength, schedulingPolicy, prefixCache } = options;
  const { maxAdapters, speculation, spill, maxPromptTokens } = options;
  return {
    ...{ maxNumSeqs, maxNumBatchedTokens, contextLength, schedulingPolicy, prefixCache },
    ...(maxAdapters === undefined ? {} : { maxAdapters }),
    ...(speculation === undefined ? {} : { speculation }),
    ...(spill === undefined ? {} : { spill }),
    ...(maxPromptTokens === undefined ? {} : { maxPromptTokens }),
  };
}
