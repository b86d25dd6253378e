/**
 * Runs the batches that are not over, a few at a time, a bounded number of lines at once.
 *
 * Invariants: the store's record says what a batch is, the rows on the disk what of it is done; whatever ends the
 * process, the next start goes on from these two; a batch always ends with a status, and with a reason where it failed.
 * Between tenants the one with the fewest running batches is next. Made by the app.
 */
import { rm } from "node:fs/promises";
import type { Log } from "#base/log.ts";
import type { Batch, BatchChange, BatchCounts, BatchProblem, BatchRecords, BatchStatus } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { type LineOutcome, ROW_HEAD, rowSucceeded } from "#wire/batch/line.ts";
import { answerLines, problemOf, type Stop } from "./answering.ts";
import type { Files } from "./files.ts";
import { behind, type InputLine, readLines } from "./lines.ts";
import type { LineEnd } from "./metrics.ts";
import { BatchOutput, OutputError, statePath } from "./output.ts";
import { countRows, partPath, type Results, splitRows } from "./results.ts";
import type { Held } from "./room.ts";
import { Turns } from "./turns.ts";

/** Calls as a batch's author. */
export interface LineCaller {
  /** @throws Fault unauthenticated: the author may not call any more | the signal's reason */
  run(line: InputLine, signal: AbortSignal): Promise<LineOutcome>;
  close(): void;
}

export interface RunnerOptions {
  readonly records: BatchRecords;
  readonly files: Files;
  readonly call: (batch: Batch) => LineCaller;
  /** Lines at once, of all batches together. */
  readonly width: number;
  /** Lines of a batch. */
  readonly mostLines: number;
  /** Bytes of a line. */
  readonly lineBytes: number;
  /** How long a batch that is over can be looked at. */
  readonly keepMs: number;
  readonly log: Log;
  /** A line has its row. */
  readonly onRow?: (how: LineEnd) => void;
  /** Unix milliseconds. For tests. */
  readonly now?: () => number;
}

const MOST_RUNNING = 4;
/** How often the store is asked what there is to do, and told how far the batches are. */
const TICK_MS = 1000;
const SWEEP_MS = 10 * 60_000;

/** Until a batch that was interrupted is tried again: doubled each time, up to the second. */
const PAUSES_MS = [TICK_MS, 60_000] as const;

interface Running {
  readonly tenant: string;
  readonly stop: AbortController;
  ended: Promise<void>;
}

type Counts = { -readonly [N in keyof BatchCounts]: BatchCounts[N] };

interface Work {
  readonly batch: Batch;
  readonly rows: BatchOutput;
  /** Lines. */
  readonly counted: number;
  readonly held: Held;
  readonly signal: AbortSignal;
}

interface Outcome {
  readonly why: Exclude<Stop, "closing"> | undefined;
  readonly problem: BatchProblem | undefined;
  /** Lines that have a row. */
  readonly answered: number;
}

export class BatchRunner {
  readonly #options: RunnerOptions;
  readonly #running = new Map<string, Running>();
  readonly #turns: Turns;
  readonly #now: () => number;
  /** Interrupted ones: when they are tried again. */
  readonly #resting = new Map<string, { readonly pause: number; readonly until: number }>();
  #closed = false;
  #wake = (): void => {};
  #loop: Promise<void> | undefined;
  #sweptAt = 0;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#turns = new Turns(options.width);
    this.#now = options.now ?? Date.now;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  wake(): void {
    this.#wake();
  }

  /** Stops where it is; the next start goes on there. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    for (const { stop } of this.#running.values()) stop.abort("closing" satisfies Stop);
    await this.#loop;
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#sweep();
        const open = await this.#options.records.open();
        for (const batch of open) this.#look(batch);
        for (const batch of this.#next(open)) this.#begin(batch);
      } catch (error) {
        this.#options.log("error", "batches cannot be looked after", { reason: messageOf(error) });
      }
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, TICK_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async #sweep(): Promise<void> {
    const now = this.#now();
    if (now - this.#sweptAt < SWEEP_MS) return;
    const { files, records, keepMs } = this.#options;
    await files.sweep();
    await records.removeOver(now - keepMs);
    this.#sweptAt = now;
  }

  #look({ id, status, expiresAt }: Batch): void {
    const running = this.#running.get(id);
    if (running === undefined) return;
    if (status === "cancelling") running.stop.abort("cancelled" satisfies Stop);
    else if (expiresAt <= this.#now()) running.stop.abort("expired" satisfies Stop);
  }

  /** Those whose turn it is: the oldest of the tenants that have the fewest at work. */
  #next(open: readonly Batch[]): readonly Batch[] {
    const rests = (id: string): boolean => (this.#resting.get(id)?.until ?? 0) > this.#now();
    const waiting = open.filter(({ id }) => !this.#running.has(id) && !rests(id));
    const chosen: Batch[] = [];
    const atWork = (tenant: string): number =>
      [...this.#running.values(), ...chosen].filter((one) => one.tenant === tenant).length;
    while (waiting.length > 0 && this.#running.size + chosen.length < MOST_RUNNING) {
      const [first] = waiting.toSorted((a, b) => atWork(a.tenant) - atWork(b.tenant));
      if (first === undefined) break;
      chosen.push(first);
      waiting.splice(waiting.indexOf(first), 1);
    }
    return chosen;
  }

  #begin(batch: Batch): void {
    const stop = new AbortController();
    const running: Running = { tenant: batch.tenant, stop, ended: Promise.resolve() };
    this.#running.set(batch.id, running);
    if (batch.status === "cancelling") stop.abort("cancelled" satisfies Stop);
    else if (batch.expiresAt <= this.#now()) stop.abort("expired" satisfies Stop);
    running.ended = this.#work(batch, stop.signal)
      .then(() => void this.#resting.delete(batch.id))
      .catch((error: unknown) => this.#interrupted(batch, error))
      .finally(() => {
        this.#running.delete(batch.id);
        this.#wake();
      });
  }

  /** Never throws. It stays open, its rows stand there, and it goes on behind them: not at once, as whatever it is may last. */
  async #interrupted(batch: Batch, error: unknown): Promise<void> {
    const { log } = this.#options;
    const [first, longest] = PAUSES_MS;
    const pause = Math.min(2 * (this.#resting.get(batch.id)?.pause ?? first / 2), longest);
    this.#resting.set(batch.id, { pause, until: this.#now() + pause });
    const ending = this.#closed || (error instanceof Fault && error.kind === "draining");
    if (!ending) log("error", "a batch is interrupted", { batch: batch.id, reason: messageOf(error) });
  }

  async #work(batch: Batch, signal: AbortSignal): Promise<void> {
    const { files } = this.#options;
    const counted = await this.#validate(batch, signal);
    if (counted === undefined) return;
    const held = await files.hold(batch.tenant);
    try {
      const rows = await this.#open(batch);
      if (rows === undefined) return;
      const problem = await this.#fill({ batch, rows, counted, held, signal }).finally(() => rows.close());
      const why = signal.aborted ? (signal.reason as Stop) : undefined;
      if (why === "closing") return;
      await this.#finish(batch, { why, problem, answered: rows.rows }, held);
    } finally {
      held.release();
    }
  }

  /** @returns undefined: they cannot be gone on with, which has been said */
  async #open(batch: Batch): Promise<BatchOutput | undefined> {
    const { log } = this.#options;
    try {
      return await BatchOutput.open(this.#rows(batch), { input: batch.inputFileId, model: batch.endpoint });
    } catch (error) {
      if (!(error instanceof OutputError)) throw error;
      log("error", "a batch failed", { batch: batch.id, reason: error.message });
      await this.#end(batch, "failed", { problem: { code: "server_error", message: "What was done of it is lost." } });
      await this.#clear(batch);
      return undefined;
    }
  }

  /** @returns how many lines there are; undefined: none that could be run, which has been said */
  async #validate(batch: Batch, signal: AbortSignal): Promise<number | undefined> {
    const { records, mostLines } = this.#options;
    if (batch.status !== "validating" && batch.counts.total > 0) return batch.counts.total;
    const found = await this.#count(batch, signal);
    if (found === "closing") return undefined;
    if (typeof found !== "number" || found === 0 || found > mostLines) {
      await this.#end(batch, "failed", {
        problem: typeof found === "number" ? lengthProblem(found, mostLines) : found,
      });
      return undefined;
    }
    const counts = { total: found, completed: 0, failed: 0 };
    const times = { ...batch.times, in_progress: this.#now() };
    await records.change(batch.id, ["validating"], { status: "in_progress", times, counts });
    await records.change(batch.id, ["cancelling"], { counts });
    return found;
  }

  async #count(batch: Batch, signal: AbortSignal): Promise<number | BatchProblem | "closing"> {
    const { mostLines } = this.#options;
    let total = 0;
    try {
      for await (const _ of this.#lines(batch)) {
        if (signal.reason === ("closing" satisfies Stop)) return "closing";
        if (++total > mostLines) break;
      }
      return total;
    } catch (error) {
      return problemOf(error);
    }
  }

  /** Fills the rows up, as far as nothing stops it. @returns why it cannot go on */
  async #fill(work: Work): Promise<BatchProblem | undefined> {
    const { batch, rows, counted, held, signal } = work;
    held.grow(rows.bytes);
    // Known since before a crash.
    if (batch.status === "finalizing" && batch.problem !== undefined) return batch.problem;
    const counts = { total: counted, ...(await countRows(this.#rows(batch))) };
    try {
      return signal.aborted ? undefined : await this.#answer(work, counts);
    } catch (error) {
      if (signal.reason === ("closing" satisfies Stop)) return undefined;
      throw error;
    } finally {
      await this.#options.records.change(batch.id, ["in_progress", "cancelling"], { counts });
    }
  }

  /** @param counts kept true */
  async #answer({ batch, rows, held, signal }: Work, counts: Counts): Promise<BatchProblem | undefined> {
    const { records, files, width, log } = this.#options;
    const caller = this.#options.call(batch);
    let told = this.#now();
    const tell = async (): Promise<void> => {
      if (this.#now() - told < TICK_MS) return;
      told = this.#now();
      await records.change(batch.id, ["in_progress", "cancelling"], { counts });
      await held.refresh();
    };
    try {
      return await answerLines({
        lines: behind(this.#lines(batch), rows.rows),
        answer: (line, stopped) => this.#turns.take(() => caller.run(line, stopped), stopped),
        width,
        put: async (row) => {
          await rows.append(row);
          held.grow(rows.bytes);
          const good = rowSucceeded(row.slice(0, ROW_HEAD));
          counts[good ? "completed" : "failed"]++;
          this.#options.onRow?.(good ? "answered" : "failed");
          await tell();
        },
        full: () => (held.isFull() ? files.full() : undefined),
        signal,
        onProblem: (error) => log("warn", "a batch cannot go on", { batch: batch.id, reason: messageOf(error) }),
      });
    } finally {
      caller.close();
    }
  }

  /** Its rows into files. Whatever fails is tried again: the rows stand there until the files do. */
  async #finish(batch: Batch, { why, problem, answered }: Outcome, held: Held): Promise<void> {
    const { records, files } = this.#options;
    const said = problem === undefined ? {} : { problem };
    const times = { ...(await this.#timesOf(batch)), finalizing: this.#now() };
    await records.change(batch.id, ["in_progress"], { status: "finalizing", times, ...said });
    const left = why === "expired" ? behind(this.#lines(batch), answered) : undefined;
    const made = await splitRows(batch, this.#rows(batch), left, { files, held });
    await this.#end(batch, problem === undefined ? (why ?? "completed") : "failed", { ...made, ...said });
    await this.#clear(batch);
  }

  async #end(batch: Batch, status: BatchStatus, more: Results & Pick<BatchChange, "problem">): Promise<void> {
    const times = { ...(await this.#timesOf(batch)), [status]: this.#now() };
    const from = ["validating", "in_progress", "finalizing", "cancelling"] as const;
    await this.#options.records.change(batch.id, from, { status, times, ...more });
  }

  async #timesOf({ tenant, id, times }: Batch): Promise<Batch["times"]> {
    return (await this.#options.records.get(tenant, id))?.times ?? times;
  }

  async #clear(batch: Batch): Promise<void> {
    const path = this.#rows(batch);
    for (const one of [path, statePath(path), partPath(path, "output"), partPath(path, "error")])
      await rm(one, { force: true });
  }

  #lines({ inputFileId }: Batch): AsyncIterable<InputLine> {
    return readLines(this.#options.files.path(inputFileId), this.#options.lineBytes);
  }

  #rows({ id }: Batch): string {
    return this.#options.files.path(`${id}.rows`);
  }
}

function lengthProblem(lines: number, most: number): BatchProblem {
  return lines === 0
    ? { code: "empty_file", message: "The file has no lines." }
    : { code: "too_many_lines", message: `The file has more than ${most} lines.` };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
