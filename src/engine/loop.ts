/**
 * The engine process's loop: while there is work, one step, one message, then a turn of the event loop, so that
 * submissions and aborts take effect between any two steps. Asleep when idle.
 *
 * Invariant: at most WINDOW step messages are unread by the parent, however slow it is; nothing piles up in the pipe.
 * Driven by process.ts, and by tests with a fake port.
 */
import type { Engine } from "./engine.ts";
import { KernelError } from "./kernel.ts";
import type { Command, Notice } from "./messages.ts";
import type { Operation, Outcome } from "./operations.ts";
import { packStep } from "./packed.ts";
import type { PoolingEngine } from "./pooling/engine.ts";
import { type EngineGauges, emptyReport } from "./report.ts";

/** What the loop drives: an engine of either kind. */
type Steps = Engine | PoolingEngine;

/** Step messages that may be under way. */
export const WINDOW = 64;
/** The parent confirms every so many; well under WINDOW, so that a healthy parent never makes the engine wait. */
export const ACK_EVERY = 16;

/** Carries out operations (operator.ts); no step is made while one is under way or while it is `still`. */
interface Performer {
  readonly still: boolean;
  perform(operation: Operation): Promise<Outcome>;
}

export class EngineLoop {
  readonly #engine: Steps;
  readonly #performer: Performer | undefined;
  #line: Promise<void> = Promise.resolve();
  #operating = 0;
  readonly #post: (notice: Notice) => void;
  #posted = 0;
  #acknowledged = 0;
  #said: EngineGauges | undefined;
  #awake = false;
  #closed = false;

  constructor(engine: Steps, post: (notice: Notice) => void, performer?: Performer) {
    this.#engine = engine;
    this.#post = post;
    this.#performer = performer;
  }

  handle(command: Exclude<Command, { type: "init" }>): void {
    switch (command.type) {
      case "submit":
        this.#engine.submit(command);
        break;
      case "pool":
        this.#engine.pool(command);
        break;
      case "abort":
        this.#engine.abort(command.request);
        break;
      case "pause":
      case "resume":
        this.#engine.setPaused(command.request, command.type === "pause");
        break;
      case "load-adapter":
        this.#answer(command.ask, () => this.#engine.loadAdapter(command.adapter, command.path));
        break;
      case "unload-adapter":
        this.#engine.unloadAdapter(command.adapter);
        break;
      case "ack":
        this.#acknowledged = command.step;
        break;
      case "operate":
        this.#operating++;
        // One after another; a performer that throws ends the process, which is then started again.
        this.#line = this.#line.then(() => this.#operate(command.call, command.operation));
        return;
      case "close":
        this.#closed = true;
        this.#engine.close();
        return;
    }
    this.#wake();
  }

  async #operate(call: number, operation: Operation): Promise<void> {
    const unable: Outcome = { done: false, message: "this engine takes no operations" };
    const outcome = (await this.#performer?.perform(operation)) ?? unable;
    this.#operating--;
    this.#post({ type: "operated", call, outcome });
    this.#wake();
  }

  #answer(ask: number, act: () => void): void {
    let error: string | undefined;
    try {
      act();
    } catch (thrown) {
      if (!(thrown instanceof KernelError)) throw thrown;
      error = thrown.message;
    }
    this.#post({ type: "answer", ask, error });
  }

  #wake(): void {
    if (this.#awake || this.#closed) return;
    this.#awake = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#awake = false;
    if (this.#closed || this.#posted - this.#acknowledged >= WINDOW) return; // the next ack wakes it
    const report = this.#still ? undefined : this.#engine.step();
    if (report !== undefined) {
      this.#say(report);
      this.#wake();
    } else if (this.#quietChange()) this.#say(emptyReport());
  }

  get #still(): boolean {
    return this.#operating > 0 || this.#performer?.still === true;
  }

  /** An abort on an otherwise idle engine changes the gauges and makes no step: it still has to be said. */
  #quietChange(): boolean {
    const { running, waiting } = this.#engine.gauges;
    return running !== (this.#said?.running ?? 0) || waiting !== (this.#said?.waiting ?? 0);
  }

  #say(report: ReturnType<typeof emptyReport>): void {
    this.#said = this.#engine.gauges;
    this.#post(packStep(++this.#posted, report, this.#said));
  }
}
