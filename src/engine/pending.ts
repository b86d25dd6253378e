/**
 * Operations that an engine process has been asked for and has not answered. Each has a timer, and both go together:
 * by the answer or by the end of the process. Used by supervisor.ts.
 */
import type { Fault } from "#core/fault.ts";
import type { OperatedMessage } from "./messages.ts";
import type { Outcome } from "./operations.ts";

interface Waiting {
  resolve(outcome: Outcome): void;
  reject(fault: Fault): void;
  readonly timer: NodeJS.Timeout;
}

export class PendingOperations {
  readonly #waiting = new Map<number, Waiting>();
  #calls = 0;

  /** @param ask sends the question under this number @param onSilence nothing was answered for so long */
  add(ask: (call: number) => void, timeoutMs: number, onSilence: () => void): Promise<Outcome> {
    const call = ++this.#calls;
    return new Promise((resolve, reject) => {
      this.#waiting.set(call, { resolve, reject, timer: setTimeout(onSilence, timeoutMs) });
      ask(call);
    });
  }

  answer({ call, outcome }: OperatedMessage): void {
    const waiting = this.#waiting.get(call);
    if (waiting === undefined) return;
    this.#waiting.delete(call);
    clearTimeout(waiting.timer);
    waiting.resolve(outcome);
  }

  fail(fault: () => Fault): void {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(fault());
    }
    this.#waiting.clear();
  }
}
