/**
 * Runs the batches that are not over, a few at a time, a bounded number of lines at once.
 *
 * Invariants: the store's record says what a batch is, the rows on the disk what of it is done; whatever ends the
 * process, the next start goes on from these two; a batch always ends with a status, and with a reason where it failed.
 * Made by the app.
 */
import { rm } from "node:fs/promises";
import { setTimeout as wait } from "node:timers/promises";
import type { Log } from "#base/log.ts";
import type { Batch, BatchChange, BatchCounts, BatchProblem, BatchRecords, BatchStatus } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { type LineOutcome, ROW_HEAD, rowSucceeded } from "#wire/batch/line.ts";
import { answerLines, problemOf, type Stop } from "./answering.ts";
import type { Files } from "./files.ts";
import { behind, type InputLine, readLines } from "./lines.ts";
import type { LineEnd } from "./metrics.ts";
import { OpenBatch } from "./open-batch.ts";
import { BatchOutput, OutputError, statePath } from "./output.ts";
import { nextMove } from "./places.ts";
import { Resting } from "./resting.ts";
import { countRows, partPath, type Results, splitRows } from "./results.ts";
import type { Held } from "./room.ts";
import { type Tries, Turns } from "./turns.ts";

/** Calls as a batch's author. */
export interface LineCaller {
  /**
   * @param tries what all that it does goes through
   * @throws Fault unauthenticated: the author may not call any more | the signal's reason, or what `tries` throw
   */
  run(line: InputLine, tries: Tries, signal: AbortSignal): Promise<LineOutcome>;
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

/** How often the store is asked what there is to do, and told how far the batches are. */
const TICK_MS = 1000;
const SWEEP_MS = 10 * 60_000;

interface Running {
  readonly open: OpenBatch;
  readonly ended: Promise<void>;
}

type Counts = { -readonly [N in keyof BatchCounts]: BatchCounts[N] };

interface Work {
  readonly open: OpenBatch;
  readonly rows: BatchOutput;
  /** Lines. */
  readonly counted: number;
  readonly held: Held;
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
  readonly #resting = new Resting();
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
    for (const { open } of this.#running.values()) open.stop.abort("closing" satisfies Stop);
    await this.#loop;
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  async #run(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#sweep();
        const open = await this.#options.records.open();
        for (const batch of open) this.#look(batch);
        this.#move(open);
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

  #look(batch: Batch): void {
    const stop = this.#running.get(batch.id)?.open.stop;
    const why = this.#endOf(batch);
    if (why !== undefined) stop?.abort(why satisfies Stop);
  }

  #endOf({ status, expiresAt }: Batch): "cancelled" | "expired" | undefined {
    if (status === "cancelling") return "cancelled";
    return expiresAt <= this.#now() ? "expired" : undefined;
  }

  /** Places to those whose turn it is. */
  #move(open: readonly Batch[]): void {
    const candidates = open
      .map((batch) => ({ batch, tenant: batch.tenant, ends: this.#endOf(batch) !== undefined }))
      .filter(({ batch, ends }) => !this.#running.has(batch.id) && !this.#resting.has(batch, ends, this.#now()))
      .toSorted((a, b) => this.#resting.since(a.batch) - this.#resting.since(b.batch));
    for (;;) {
      const places = [...this.#running.values()].map((one) => one.open);
      const move = nextMove(places, candidates, this.#now());
      if (move === undefined) return;
      move.leave?.leave();
      if (move.begin === undefined) continue;
      candidates.splice(candidates.indexOf(move.begin), 1);
      this.#begin(move.begin.batch);
    }
  }

  #begin(batch: Batch): void {
    const open = new OpenBatch(batch, { turns: this.#turns, now: this.#now });
    const why = this.#endOf(batch);
    if (why !== undefined) open.stop.abort(why satisfies Stop);
    const ended = this.#work(open)
      .then((rested) => this.#ended(open, rested))
      .catch((error: unknown) => this.#interrupted(batch, error))
      .finally(() => {
        this.#running.delete(batch.id);
        this.#wake();
      });
    this.#running.set(batch.id, { open, ended });
  }

  #ended({ batch, goesOnAt }: OpenBatch, rested: boolean): void {
    if (rested && goesOnAt !== undefined) this.#resting.waits(batch, goesOnAt);
    else this.#resting.forget(batch);
  }

  /** Never throws. It stays open, its rows stand there, and it goes on behind them another time. */
  #interrupted(batch: Batch, error: unknown): void {
    this.#resting.interrupted(batch, this.#now());
    const ending = this.#closed || (error instanceof Fault && error.kind === "draining");
    if (!ending) this.#options.log("error", "a batch is interrupted", { batch: batch.id, reason: messageOf(error) });
  }

  /** @returns whether it rests: lines are left, and nothing but another's need of its place has stopped them */
  async #work(open: OpenBatch): Promise<boolean> {
    const { batch, rest } = open;
    const { signal } = open.stop;
    const counted = await this.#validate(batch, signal);
    if (counted === undefined) return false;
    const held = await this.#options.files.hold(batch.tenant);
    try {
      const rows = await this.#open(batch);
      if (rows === undefined) return false;
      const problem = await this.#fill({ open, rows, counted, held }).finally(() => rows.close());
      const why = signal.aborted ? (signal.reason as Stop) : undefined;
      if (why === "closing") return false;
      if (why === undefined && problem === undefined && rest.aborted && rows.rows < counted) return true;
      await this.#finish(batch, { why, problem, answered: rows.rows }, held);
      return false;
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
    const { open, rows, counted, held } = work;
    const { batch } = open;
    const { signal } = open.stop;
    held.grow(rows.bytes);
    // Known since before a crash.
    if (batch.status === "finalizing" && batch.problem !== undefined) return batch.problem;
    const counts = { total: counted, ...(await countRows(this.#rows(batch))) };
    const tell = async (): Promise<void> => {
      await this.#options.records.change(batch.id, ["in_progress", "cancelling"], { counts });
    };
    let told = answeredOf(counts);
    const tellNoMore = everyTick(async () => {
      await held.refresh();
      const now = answeredOf(counts);
      if (now === told) return;
      await tell();
      told = now;
    });
    try {
      return signal.aborted ? undefined : await this.#answer(work, counts);
    } catch (error) {
      if (signal.reason === ("closing" satisfies Stop)) return undefined;
      throw error;
    } finally {
      await tellNoMore();
      await tell();
    }
  }

  /** @param counts kept true */
  async #answer({ open, rows, held }: Work, counts: Counts): Promise<BatchProblem | undefined> {
    const { files, width, log } = this.#options;
    const { batch, rest } = open;
    const caller = this.#options.call(batch);
    try {
      return await answerLines({
        lines: behind(this.#lines(batch), rows.rows),
        answer: (line, { stopped, leaving }) => open.answer((tries) => caller.run(line, tries, stopped), leaving),
        width,
        put: async (row) => {
          await rows.append(row);
          held.grow(rows.bytes);
          const good = rowSucceeded(row.slice(0, ROW_HEAD));
          counts[good ? "completed" : "failed"]++;
          this.#options.onRow?.(good ? "answered" : "failed");
          open.written();
        },
        full: () => (held.isFull() ? files.full() : undefined),
        signal: open.stop.signal,
        rest,
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

function answeredOf({ completed, failed }: BatchCounts): number {
  return completed + failed;
}

/** What fails is done at the next tick. @returns ends it, when nothing of it is on its way any more */
function everyTick(work: () => Promise<void>): () => Promise<void> {
  const ending = new AbortController();
  const { signal } = ending;
  const ticks = async (): Promise<void> => {
    while (!signal.aborted) {
      await wait(TICK_MS, undefined, { signal }).catch(() => {});
      if (!signal.aborted) await work().catch(() => {});
    }
  };
  const over = ticks();
  return async () => {
    ending.abort();
    await over;
  };
}

function lengthProblem(lines: number, most: number): BatchProblem {
  return lines === 0
    ? { code: "empty_file", message: "The file has no lines." }
    : { code: "too_many_lines", message: `The file has more than ${most} lines.` };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
