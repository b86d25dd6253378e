/**
 * The thread in which this program waits for its own disk: SQLite's statements and the audit log's groups.
 *
 * What is asked for in one turn of the event loop goes as one message and is answered by one, since on a core that is
 * not busy a message costs more than most of what it asks for. Invariants: answers settle what was asked, in its order;
 * once the thread has ended everything is refused; it keeps the program from ending only while an answer is due.
 * Callers: sqlite.ts, and store.ts for the audit log.
 */
import { Worker } from "node:worker_threads";
import type { Appended, GroupOnDisk } from "#policy/audit/append.ts";
import type { DiskAnswer, DiskRequest, DiskThreadOptions } from "./disk-thread.ts";
import { StoreError } from "./store-error.ts";

const ENTRY = new URL(import.meta.url.endsWith(".ts") ? "./disk-thread.ts" : "./disk-thread.js", import.meta.url);

/** What the thread was asked for went wrong there. */
export class DiskError extends Error {
  override readonly name = "DiskError";
  /** SQLite's extended result code, or the system's name of the error. */
  readonly code: number | string | undefined;

  constructor(message: string, code: number | string | undefined) {
    super(message);
    this.code = code;
  }
}

interface Waiting {
  readonly resolve: (answer: never) => void;
  readonly reject: (error: Error) => void;
}

export class Disk {
  readonly #worker: Worker;
  /** Not sent yet. */
  #asked: DiskRequest[] = [];
  /** In the order of their answers. */
  readonly #waiting: Waiting[] = [];
  #broken: StoreError | undefined;
  /** Memory that the thread has been told of. */
  #shared: ArrayBufferLike | undefined;

  constructor(options: DiskThreadOptions) {
    this.#worker = new Worker(ENTRY, { workerData: options, env: {}, argv: [], name: "disk" });
    this.#worker.unref();
    this.#worker.on("message", (answers: readonly DiskAnswer[]) => this.#settle(answers));
    this.#worker.on("error", (error) => this.#break(`the disk's thread failed: ${(error as Error).message}`));
    this.#worker.on("exit", () => this.#break("the disk's thread has ended"));
  }

  /** @throws DiskError what the thread met; StoreError there is no thread */
  ask<A extends DiskAnswer>(request: DiskRequest): Promise<A> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#waiting.length === 0) this.#worker.ref();
    if (this.#asked.push(request) === 1) process.nextTick(this.#send);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
    });
  }

  /**
   * A group of the audit log. Its bytes lie in memory that both threads see, so nothing of them is copied.
   * @throws DiskError
   */
  async append(group: GroupOnDisk): Promise<Appended> {
    // The last records come when the store is closed, or as it cannot be used.
    if (this.#broken !== undefined) return "elsewhere";
    const { bytes, ...place } = group;
    const told = bytes.buffer === this.#shared;
    this.#shared = bytes.buffer;
    const request = { ...place, size: bytes.length, ...(told ? {} : { memory: bytes.buffer as SharedArrayBuffer }) };
    return (await this.ask<{ appended: Appended }>({ append: request })).appended;
  }

  /** When what was asked for is done. */
  async close(): Promise<void> {
    const ended = new Promise((done) => this.#worker.once("exit", done));
    this.#worker.ref();
    this.#send();
    this.#worker.postMessage("close");
    if (this.#broken === undefined) await ended;
  }

  readonly #send = (): void => {
    if (this.#asked.length === 0) return;
    const asked = this.#asked;
    this.#asked = [];
    try {
      this.#worker.postMessage(asked);
    } catch (error) {
      // Something in it cannot be told to a thread: whoever asked in this turn hears of it.
      for (const { reject } of this.#waiting.splice(-asked.length)) reject(error as Error);
    }
  };

  #settle(answers: readonly DiskAnswer[]): void {
    const settled = this.#waiting.splice(0, answers.length);
    if (this.#waiting.length === 0) this.#worker.unref();
    for (const [i, answer] of answers.entries()) {
      if ("error" in answer) settled[i]?.reject(new DiskError(answer.error, answer.code));
      else settled[i]?.resolve(answer as never);
    }
  }

  #break(message: string): void {
    this.#broken ??= new StoreError(message);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#broken);
  }
}
