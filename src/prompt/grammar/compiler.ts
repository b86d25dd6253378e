/**
 * Compiles what clients ask for, off everybody's way: a small source at once, any other in a thread of its own, one after
 * another, each bounded in time and memory. What was compiled is remembered, because the same schema comes again.
 *
 * Invariants (Wall: T26): the event loop waits for small grammars only; a thread that takes too long is ended, and the
 * next source gets a new one; what is kept and what waits is bounded. Made by the app, called by serving.
 */
import { Worker } from "node:worker_threads";
import { Fault } from "#core/fault.ts";
import type { Constraint, Grammar } from "#core/grammar.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { GrammarError, type GrammarSize, SizeError } from "./builder.ts";
import { grammarOf, keyOf } from "./compile.ts";

/** What a thread answers. */
export type Compiled = { readonly grammar: Grammar } | { readonly refused: string };

export interface CompilerBounds {
  /** A source of more characters is not compiled at once, and neither is one that becomes larger. */
  readonly sourceAtOnce: number;
  readonly sizeAtOnce: GrammarSize;
  /** Milliseconds in the thread. */
  readonly timeMs: number;
  /** Sources that wait for the thread. */
  readonly waiting: number;
  /** What is remembered: grammars, and bytes of their tables. */
  readonly kept: number;
  readonly keptBytes: number;
}

/** At once costs some 10 ms at most; the thread needs 1 s for the largest grammar that there can be. */
const BOUNDS: CompilerBounds = {
  sourceAtOnce: 4096,
  sizeAtOnce: { states: 6000, edges: 24_000 },
  timeMs: 3000,
  waiting: 64,
  kept: 256,
  keptBytes: 64 * 1024 * 1024,
};

export class GrammarCompiler {
  readonly #bounds: CompilerBounds;
  readonly #kept = new Map<string, Constraint>();
  /** The same source that comes meanwhile waits for the first. */
  readonly #underWay = new Map<string, Promise<Constraint>>();
  #bytes = 0;
  #worker: Worker | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(bounds: Partial<CompilerBounds> = {}) {
    this.#bounds = { ...BOUNDS, ...bounds };
  }

  /**
   * @param timeMs that the thread may take
   * @throws GrammarError in words for the client; Fault overloaded when too many wait
   */
  async compile(wanted: StructuredOutput, timeMs = this.#bounds.timeMs): Promise<Constraint> {
    const source = JSON.stringify(wanted);
    const key = keyOf(source);
    const found = this.#kept.get(key);
    if (found !== undefined) return this.#keep(found);
    const atOnce = source.length <= this.#bounds.sourceAtOnce ? this.#small(wanted) : undefined;
    if (atOnce !== undefined) return this.#keep({ key, grammar: atOnce });
    const pending = this.#underWay.get(key) ?? this.#enqueue(key, wanted, timeMs);
    return pending;
  }

  /** Grammars and bytes that are remembered now, and sources that are being compiled. */
  counters(): { readonly kept: number; readonly bytes: number; readonly underWay: number } {
    return { kept: this.#kept.size, bytes: this.#bytes, underWay: this.#underWay.size };
  }

  /** Ends the thread; it would not keep the process alive either. */
  async close(): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  /** undefined: it is not small. @throws GrammarError */
  #small(wanted: StructuredOutput): Grammar | undefined {
    try {
      return grammarOf(wanted, this.#bounds.sizeAtOnce);
    } catch (error) {
      if (error instanceof SizeError) return undefined;
      throw error;
    }
  }

  #enqueue(key: string, wanted: StructuredOutput, timeMs: number): Promise<Constraint> {
    if (this.#underWay.size >= this.#bounds.waiting)
      throw new Fault("overloaded", "Too many grammars are being compiled.", { retryAfterMs: 1000 });
    const turn = this.#last.then(() => this.#inThread(wanted, timeMs));
    this.#last = turn.catch(() => {});
    const work = turn
      .then((grammar) => this.#keep({ key, grammar }))
      .finally(() => {
        this.#underWay.delete(key);
      });
    this.#underWay.set(key, work);
    return work;
  }

  /** One at a time. @throws GrammarError */
  async #inThread(wanted: StructuredOutput, timeMs: number): Promise<Grammar> {
    this.#worker ??= startThread();
    const worker = this.#worker;
    const answer = await answerOf(worker, wanted, timeMs);
    if (answer !== undefined && "grammar" in answer) return answer.grammar;
    if (answer !== undefined) throw new GrammarError(answer.refused);
    // Out of time, or of memory, of which the thread has died.
    this.#worker = undefined;
    await worker.terminate();
    throw new GrammarError("it takes too much time or memory to compile");
  }

  #keep(constraint: Constraint): Constraint {
    const { key } = constraint;
    const before = this.#kept.get(key);
    if (before !== undefined) this.#forget(before);
    this.#kept.set(key, constraint);
    this.#bytes += bytesOf(constraint);
    for (const oldest of this.#kept.values()) {
      if (this.#kept.size <= this.#bounds.kept && this.#bytes <= this.#bounds.keptBytes) break;
      this.#forget(oldest);
    }
    return constraint;
  }

  #forget(constraint: Constraint): void {
    this.#kept.delete(constraint.key);
    this.#bytes -= bytesOf(constraint);
  }
}

function bytesOf({ grammar: { edges, edgeStart, empties, emptyStart, calls, callStart, ends } }: Constraint): number {
  return [edges, edgeStart, empties, emptyStart, calls, callStart, ends].reduce(
    (sum, { byteLength }) => sum + byteLength,
    0,
  );
}

function startThread(): Worker {
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js";
  const worker = new Worker(new URL(`./compile-thread.${extension}`, import.meta.url), {
    resourceLimits: { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 32 },
    env: {},
    stdout: true,
    stderr: true,
  });
  worker.unref();
  worker.on("error", () => {}); // its end is seen by who waits for the answer
  return worker;
}

/** undefined: the thread ended, or was not done in time. */
function answerOf(worker: Worker, wanted: StructuredOutput, timeMs: number): Promise<Compiled | undefined> {
  return new Promise((resolve) => {
    const done = (answer: Compiled | undefined): void => {
      clearTimeout(timer);
      worker.off("message", done);
      worker.off("exit", gone);
      resolve(answer);
    };
    const gone = (): void => done(undefined);
    const timer = setTimeout(gone, timeMs);
    worker.once("message", done);
    worker.once("exit", gone);
    worker.postMessage(wanted);
  });
}
