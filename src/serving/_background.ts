/**
 * Responses that go on after their request was answered: how many, for how long, who listens, and how each ends.
 *
 * Invariants: runs are bounded in number, in all and by tenant, and in time; what a run used is settled whatever ends
 * it; its last event leaves once the store has the end; a run whose end cannot be stored is tried again for as long as
 * the server lives, and is given up for dead by others after that. Caller: responses.ts.
 */
import type { Log } from "#base/log.ts";
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import { ownedKey } from "#core/owned.ts";
import type { ResponseEvent, ResponseStore, ResponseWriter } from "#core/responses.ts";
import { errorOf } from "#wire/responses/dialect.ts";

export interface BackgroundOptions {
  readonly store: ResponseStore;
  /** Runs at once: in all, and of one tenant. */
  readonly most: number;
  readonly mostOfTenant: number;
  /** A run may take so long. */
  readonly timeoutMs: number;
  readonly log: Log;
  readonly retryMs?: number;
}

/** What a run needs besides its events. */
export interface Job {
  readonly tenant: string;
  readonly id: string;
  readonly writer: ResponseWriter;
  /** The end as the store keeps it. */
  readonly finish: () => Promise<boolean>;
}

const RETRY_MS = 1000;
/** Tries to store an end while the server shuts down. */
const LAST_TRIES = 3;

export class Background {
  readonly #options: BackgroundOptions;
  readonly #runs = new Map<string, Run>();
  readonly #byId = new Map<string, Run>();
  readonly #places = new Map<string, number>();
  #taken = 0;
  #closing = false;
  /** Set: the time for what runs is over, and for what had a place and begins only now. */
  #over: Fault | undefined;
  #idle: (() => void) | undefined;

  constructor(options: BackgroundOptions) {
    this.#options = options;
    options.store.onEnded((id) => this.#byId.get(id)?.cancel());
  }

  /** @returns gives the place back. @throws Fault draining | overloaded | rate_limited */
  take(tenant: string): () => void {
    const { most, mostOfTenant } = this.#options;
    if (this.#closing) throw new Fault("draining", "The server is shutting down.");
    const own = this.#places.get(tenant) ?? 0;
    if (own >= mostOfTenant)
      throw new Fault("rate_limited", "Too many background responses at once.", { retryAfterMs: 1000 });
    if (this.#taken >= most)
      throw new Fault("overloaded", "The server has too many background responses at once.", { retryAfterMs: 1000 });
    this.#places.set(tenant, own + 1);
    this.#taken++;
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#taken--;
      const left = (this.#places.get(tenant) ?? 1) - 1;
      if (left > 0) this.#places.set(tenant, left);
      else this.#places.delete(tenant);
      if (this.#taken === 0) this.#idle?.();
    };
  }

  /** Draws on the events from now on. @param leave gives the place back, when it is over */
  start(job: Job, events: AsyncIterable<CallEvent>, controller: AbortController, leave: () => void): Run {
    const run = new Run(controller);
    const key = ownedKey(job.tenant, job.id);
    this.#runs.set(key, run);
    this.#byId.set(job.id, run);
    run.publish(job.writer.begin());
    if (this.#over !== undefined) run.abort(this.#over);
    this.#work(run, job, events).finally(() => {
      this.#runs.delete(key);
      this.#byId.delete(job.id);
      leave();
    });
    return run;
  }

  /** A run of this server. */
  find(tenant: string, id: string): Run | undefined {
    return this.#runs.get(ownedKey(tenant, id));
  }

  /** Runs may go on for so long, then they fail. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    await this.#whenIdle(graceMs);
    this.#over = new Fault("draining", "The server was shut down.");
    for (const run of this.#runs.values()) run.abort(this.#over);
    await this.#whenIdle(undefined);
  }

  async #whenIdle(milliseconds: number | undefined): Promise<void> {
    if (this.#taken === 0) return;
    const timer = milliseconds === undefined ? undefined : setTimeout(() => this.#idle?.(), milliseconds);
    await new Promise<void>((done) => {
      this.#idle = done;
    });
    clearTimeout(timer);
    this.#idle = undefined;
  }

  async #work(run: Run, { id, writer, finish }: Job, events: AsyncIterable<CallEvent>): Promise<void> {
    const { store, timeoutMs, log } = this.#options;
    const late = new Fault("request_timeout", "The response took too long.");
    const timer = setTimeout(() => run.abort(late), timeoutMs);
    let last: readonly ResponseEvent[] = [];
    try {
      for await (const event of events) {
        run.publish(last);
        last = writer.push(event);
        if (event.type === "start") store.started(id).catch(() => {});
      }
    } catch (error) {
      run.publish(last);
      const cause = run.reason ?? error;
      last = cause === "cancelled" ? writer.stop("cancelled") : writer.stop("failed", errorOf(cause));
      if (!(cause instanceof Fault) && cause !== "cancelled")
        log("error", "a bug ended a background response", { error: String(error) });
    }
    clearTimeout(timer);
    await this.#store(finish);
    run.publish(last);
    run.end();
  }

  async #store(finish: () => Promise<boolean>): Promise<void> {
    const { log, retryMs = RETRY_MS } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        await finish();
        return;
      } catch (error) {
        log("error", "the end of a background response cannot be stored", { error: String(error), tries });
      }
      if (this.#closing && tries >= LAST_TRIES) return;
      await new Promise((done) => setTimeout(done, retryMs));
    }
  }
}

/** One response on its way, and who follows it. */
export class Run {
  readonly #controller: AbortController;
  readonly #events: ResponseEvent[] = [];
  readonly #waiting = new Set<() => void>();
  #ended = false;
  /** Why it was ended from outside. */
  reason: Fault | "cancelled" | undefined;

  constructor(controller: AbortController) {
    this.#controller = controller;
  }

  cancel(): void {
    this.#stop("cancelled");
  }

  abort(fault: Fault): void {
    this.#stop(fault);
  }

  #stop(reason: Fault | "cancelled"): void {
    this.reason ??= reason;
    this.#controller.abort();
  }

  publish(events: readonly ResponseEvent[]): void {
    if (events.length === 0) return;
    this.#events.push(...events);
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** From the event after this sequence number to the last. A follower that leaves changes nothing. */
  async *follow(after: number, signal: AbortSignal): AsyncGenerator<ResponseEvent> {
    for (let at = after + 1; ; at++) {
      while (this.#events.length <= at && !this.#ended && !signal.aborted) await this.#next(signal);
      const event = this.#events[at];
      if (event === undefined || signal.aborted) return;
      yield event;
    }
  }

  async #next(signal: AbortSignal): Promise<void> {
    let wake = (): void => {};
    const woken = new Promise<void>((resolve) => {
      wake = resolve;
    });
    this.#waiting.add(wake);
    signal.addEventListener("abort", wake, { once: true });
    await woken;
    signal.removeEventListener("abort", wake);
    this.#waiting.delete(wake);
  }
}
