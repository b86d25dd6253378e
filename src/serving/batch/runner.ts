/**
 * Runs the batches that are not over, a few at a time, a bounded number of lines at once.
 *
 * Invariants: the store's record says what a batch is, the rows on the disk what of it is done; whatever ends the
 * process, the next start goes on from these two; a batch always ends with a status, and with a reason where it failed.
 * Between tenants the one with the fewest running batches is next. Made by the app.
 */
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import type { Log } from "#base/log.ts";
import type { Batch, BatchCounts, BatchProblem, BatchRecords, BatchStatus } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import {
  decodeLine,
  type LineOutcome,
  printOpenaiRow,
  printUnanswered,
  ROW_HEAD,
  rowSucceeded,
} from "#wire/batch/line.ts";
import { type Files, newId } from "./files.ts";
import { inOrder } from "./in-order.ts";
import { behind, type InputLine, readLines } from "./lines.ts";
import { BatchOutput, OutputError, statePath } from "./output.ts";
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
  /** Bytes of a batch's rows. */
  readonly mostBytes: number;
  /** How long a batch that is over can be looked at. */
  readonly keepMs: number;
  readonly log: Log;
}

const MOST_RUNNING = 4;
const AHEAD = 4;
/** How often the store is asked what there is to do, and told how far the batches are. */
const TICK_MS = 1000;
const SWEEP_MS = 10 * 60_000;

/** Why work on a batch stops before its lines are done. */
type Stop = "cancelled" | "expired" | "closing";

interface Running {
  readonly tenant: string;
  readonly stop: AbortController;
  ended: Promise<void>;
}

export class BatchRunner {
  readonly #options: RunnerOptions;
  readonly #running = new Map<string, Running>();
  readonly #turns: Turns;
  #closed = false;
  #wake = (): void => {};
  #loop: Promise<void> | undefined;
  #sweptAt = 0;

  constructor(options: RunnerOptions) {
    this.#options = options;
    this.#turns = new Turns(options.width);
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
    const now = Date.now();
    if (now - this.#sweptAt < SWEEP_MS) return;
    const { files, records, keepMs } = this.#options;
    await files.sweep(this.#sweptAt === 0);
    await records.removeOver(now - keepMs);
    this.#sweptAt = now;
  }

  #look({ id, status, expiresAt }: Batch): void {
    const running = this.#running.get(id);
    if (running === undefined) return;
    if (status === "cancelling") running.stop.abort("cancelled" satisfies Stop);
    else if (expiresAt <= Date.now()) running.stop.abort("expired" satisfies Stop);
  }

  /** Those whose turn it is: the oldest of the tenants that have the fewest at work. */
  #next(open: readonly Batch[]): readonly Batch[] {
    const waiting = open.filter(({ id }) => !this.#running.has(id));
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
    else if (batch.expiresAt <= Date.now()) stop.abort("expired" satisfies Stop);
    running.ended = this.#work(batch, stop.signal)
      .catch((error: unknown) => this.#fail(batch, error))
      .finally(() => {
        this.#running.delete(batch.id);
        this.#wake();
      });
  }

  /** Never throws. */
  async #fail(batch: Batch, error: unknown): Promise<void> {
    const { log } = this.#options;
    try {
      // Its rows stand there: it goes on behind them when the store is back.
      if (isAway(error)) throw error;
      log("error", "a batch failed", { batch: batch.id, reason: messageOf(error) });
      await this.#end(batch, "failed", { problem: problemOf(error) });
      await this.#clear(batch);
    } catch (second) {
      log("error", "a batch is interrupted", { batch: batch.id, reason: messageOf(second) });
      // It is open still, and tried again: not at once, as whatever it is may last.
      if (!this.#closed) await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    }
  }

  async #work(batch: Batch, signal: AbortSignal): Promise<void> {
    const { records, files } = this.#options;
    const counted = await this.#validate(batch, signal);
    if (counted === undefined) return;
    const identity = { input: batch.inputFileId, model: batch.endpoint };
    const rows = await BatchOutput.open(this.#rowsPath(batch), identity);
    const counts = { total: counted, ...(await countRows(this.#rowsPath(batch), this.#rowBytes)) };
    let problem: BatchProblem | undefined;
    try {
      problem = await this.#answer(batch, rows, counts, signal);
    } finally {
      await rows.close();
      await records.change(batch.id, ["in_progress", "cancelling"], { counts });
    }
    const why = signal.aborted ? (signal.reason as Stop) : undefined;
    if (why === "closing") return;
    const finalizing = { ...(await this.#timesOf(batch)), finalizing: Date.now() };
    await records.change(batch.id, ["in_progress"], { status: "finalizing", times: finalizing });
    const left =
      why === "expired"
        ? behind(readLines(files.path(batch.inputFileId), this.#options.lineBytes), rows.rows)
        : undefined;
    const made = await this.#split(batch, left);
    const status = problem === undefined ? (why ?? "completed") : "failed";
    await this.#end(batch, status, { ...made, ...(problem === undefined ? {} : { problem }) });
    await this.#clear(batch);
  }

  /** @returns how many lines there are; undefined: none that could be run, which has been said */
  async #validate(batch: Batch, signal: AbortSignal): Promise<number | undefined> {
    const { records, files, lineBytes, mostLines } = this.#options;
    if (batch.status !== "validating" && batch.counts.total > 0) return batch.counts.total;
    let total = 0;
    for await (const _ of readLines(files.path(batch.inputFileId), lineBytes)) {
      if (signal.reason === "closing") return undefined;
      if (++total > mostLines) break;
    }
    const problem = total === 0 ? "The file has no lines." : `The file has more than ${mostLines} lines.`;
    if (total === 0 || total > mostLines) {
      await this.#end(batch, "failed", {
        problem: { code: total === 0 ? "empty_file" : "too_many_lines", message: problem },
      });
      return undefined;
    }
    const counts = { total, completed: 0, failed: 0 };
    const times = { ...batch.times, in_progress: Date.now() };
    await records.change(batch.id, ["validating"], { status: "in_progress", times, counts });
    await records.change(batch.id, ["cancelling"], { counts });
    return total;
  }

  /** Fills the rows up, as far as nothing stops it. `counts` is kept true. @returns why it cannot go on */
  async #answer(
    batch: Batch,
    rows: BatchOutput,
    counts: { -readonly [N in keyof BatchCounts]: BatchCounts[N] },
    signal: AbortSignal,
  ): Promise<BatchProblem | undefined> {
    const { records, files, width, lineBytes, mostBytes } = this.#options;
    const caller = this.#options.call(batch);
    const lines = behind(readLines(files.path(batch.inputFileId), lineBytes), rows.rows);
    const work = (line: InputLine): Promise<LineOutcome> => this.#turns.take(() => caller.run(line, signal), signal);
    let told = Date.now();
    try {
      if (signal.aborted) return undefined;
      for await (const outcome of inOrder(lines, { width, ahead: AHEAD * width }, work)) {
        const row = printOpenaiRow(outcome);
        await rows.append(row);
        if (rowSucceeded(row.slice(0, ROW_HEAD))) counts.completed++;
        else counts.failed++;
        if (rows.bytes > mostBytes)
          throw new Fault("payload_too_large", `The answers take more than ${mostBytes} bytes.`);
        if (Date.now() - told < TICK_MS) continue;
        told = Date.now();
        await records.change(batch.id, ["in_progress", "cancelling"], { counts });
      }
      return undefined;
    } catch (error) {
      if (signal.aborted) return undefined;
      if (error instanceof Fault && !isAway(error)) return problemOf(error);
      throw error;
    } finally {
      caller.close();
    }
  }

  /** Answers into one file, failures into another; those that have any. */
  async #split(
    batch: Batch,
    left: AsyncIterable<InputLine> | undefined,
  ): Promise<{ outputFileId?: string; errorFileId?: string }> {
    const rowsPath = this.#rowsPath(batch);
    const made: { outputFileId?: string; errorFileId?: string } = {};
    for (const [field, ending, good] of [
      ["outputFileId", "output", true],
      ["errorFileId", "error", false],
    ] as const) {
      const path = `${rowsPath}.${ending}`;
      const chosen = rowsOf(rowsPath, this.#rowBytes, good, good ? undefined : left);
      await pipeline(chosen, createWriteStream(path, { mode: 0o600, flush: true }));
      // The same at every try, so that a crash leaves no second one.
      const id = `file-${batch.id.slice("batch_".length)}_${ending}`;
      const { tenant, author } = batch;
      const name = `${batch.id}_${ending}.jsonl`;
      if (await this.#keep(path, { id, tenant, createdBy: author.id, name })) made[field] = id;
    }
    return made;
  }

  /** @returns false: it is empty, and gone */
  async #keep(path: string, file: Parameters<Files["adoptOutput"]>[1]): Promise<boolean> {
    let bytes = false;
    for await (const _ of readLines(path, 0)) {
      bytes = true;
      break;
    }
    if (bytes) await this.#options.files.adoptOutput(path, file);
    else await rm(path, { force: true });
    return bytes;
  }

  async #end(
    batch: Batch,
    status: BatchStatus,
    more: { problem?: BatchProblem; outputFileId?: string; errorFileId?: string },
  ): Promise<void> {
    const times = { ...(await this.#timesOf(batch)), [status]: Date.now() };
    const from = ["validating", "in_progress", "finalizing", "cancelling"] as const;
    await this.#options.records.change(batch.id, from, { status, times, ...more });
  }

  async #timesOf({ tenant, id, times }: Batch): Promise<Batch["times"]> {
    return (await this.#options.records.get(tenant, id))?.times ?? times;
  }

  async #clear(batch: Batch): Promise<void> {
    const rows = this.#rowsPath(batch);
    for (const path of [rows, statePath(rows), `${rows}.output`, `${rows}.error`]) await rm(path, { force: true });
  }

  #rowsPath({ id }: Batch): string {
    return this.#options.files.path(`${id}.rows`);
  }

  get #rowBytes(): number {
    return this.#options.mostBytes;
  }
}

async function countRows(path: string, most: number): Promise<Omit<BatchCounts, "total">> {
  const counts = { completed: 0, failed: 0 };
  for await (const { text } of readLines(path, most))
    if (text !== undefined && rowSucceeded(headOf(text))) counts.completed++;
    else counts.failed++;
  return counts;
}

async function* rowsOf(
  path: string,
  most: number,
  good: boolean,
  left: AsyncIterable<InputLine> | undefined,
): AsyncGenerator<Uint8Array> {
  const end = Buffer.from("\n");
  for await (const { text } of readLines(path, most))
    if (text !== undefined && rowSucceeded(headOf(text)) === good) yield Buffer.concat([text, end]);
  if (left === undefined) return;
  for await (const { text } of left) {
    const customId = text === undefined ? null : decodeLine(text).customId;
    const message = "This request could not be executed before the completion window expired.";
    yield Buffer.from(`${printUnanswered(newId(""), customId, "batch_expired", message)}\n`);
  }
}

function headOf(text: Uint8Array): string {
  return Buffer.from(text.buffer, text.byteOffset, Math.min(text.length, ROW_HEAD)).toString();
}

function problemOf(error: unknown): BatchProblem {
  if (error instanceof Fault) return { code: error.kind, message: error.message };
  if (error instanceof OutputError) return { code: "server_error", message: "What was done of it is lost." };
  const gone = (error as NodeJS.ErrnoException).code === "ENOENT";
  return { code: "server_error", message: gone ? "Its file is gone." : "Internal server error." };
}

/** The store does not answer: that is no fault of the batch. */
function isAway(error: unknown): boolean {
  return error instanceof Fault && error.kind === "policy_unavailable";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
