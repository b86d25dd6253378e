/**
 * A batch's lines into its rows, several at once, until there is none left or something stops them.
 *
 * Invariants: rows stand in the order of the lines, one for each, without a gap; whatever stops the work but the end of
 * the server, a line that was answered has its row: those before it that were not get one that says so. Where the batch
 * rests they get none, and what was answered behind them is asked for again. Private to runner.ts.
 */
import type { BatchProblem } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { type LineOutcome, printOpenaiRow } from "#wire/batch/line.ts";
import { inOrder } from "./in-order.ts";
import type { InputLine } from "./lines.ts";
import { CANCELLED, EXPIRED, unansweredRow } from "./results.ts";

/** Why work on a batch stops before its lines are done. */
export type Stop = "cancelled" | "expired" | "closing";

export interface Answering {
  /** Those that have no row. */
  readonly lines: AsyncIterable<InputLine>;
  readonly answer: (line: InputLine, signals: LineSignals) => Promise<LineOutcome>;
  readonly width: number;
  readonly put: (row: string) => Promise<void>;
  /** There is no room for more answers: what is wrong. */
  readonly full: () => Fault | undefined;
  /** Aborted with a Stop. */
  readonly signal: AbortSignal;
  /** Aborted: the batch rests. No line is begun, those that wait end, and those on their way are answered. */
  readonly rest: AbortSignal;
  readonly onProblem: (error: unknown) => void;
}

export interface LineSignals {
  /** Ends it. */
  readonly stopped: AbortSignal;
  /** Ends it where it is not on its way: that, or the batch rests. */
  readonly leaving: AbortSignal;
}

/** Begun and not yet a row, for each line at once. */
const AHEAD = 4;

interface Done {
  readonly line: InputLine;
  /** Undefined: it was stopped. */
  readonly outcome: LineOutcome | undefined;
}

/**
 * @returns why the batch cannot go on; undefined: its lines are done, or a signal stopped them
 * @throws what is no fault of the batch, which goes on behind its rows another time: the server is ending, the store is
 * away, the disk is full
 */
export async function answerLines(job: Answering): Promise<BatchProblem | undefined> {
  const { lines, width, put, signal, rest, onProblem } = job;
  const broken = new AbortController();
  const stopped = AbortSignal.any([signal, broken.signal]);
  const leaving = AbortSignal.any([stopped, rest]);
  let problem: BatchProblem | undefined;
  const breakOff = (error: unknown, ends: boolean): void => {
    if (problem === undefined) onProblem(error);
    problem ??= problemOf(error);
    if (ends) broken.abort();
  };
  const source = async function* (): AsyncGenerator<InputLine> {
    try {
      for await (const line of lines) {
        if (leaving.aborted) return;
        const full = job.full();
        if (full === undefined) yield line;
        else return breakOff(full, false);
      }
    } catch (error) {
      breakOff(error, true);
    }
  };
  const work = async (line: InputLine): Promise<Done> => {
    try {
      return { line, outcome: await job.answer(line, { stopped, leaving }) };
    } catch (error) {
      if (signal.reason === ("closing" satisfies Stop) || isInterruption(error)) throw error;
      if (!leaving.aborted) breakOff(error, true);
      return { line, outcome: undefined };
    }
  };
  const skipped: InputLine[] = [];
  for await (const { line, outcome } of inOrder(source(), { width, ahead: AHEAD * width }, work)) {
    const rests = rest.aborted && !stopped.aborted && problem === undefined;
    if (outcome === undefined || (rests && skipped.length > 0)) {
      skipped.push(line);
      continue;
    }
    const why = problem ?? (signal.reason === ("expired" satisfies Stop) ? EXPIRED : CANCELLED);
    for (const one of skipped.splice(0)) await put(unansweredRow(one, why));
    await put(printOpenaiRow(outcome));
  }
  return signal.aborted ? undefined : problem;
}

export function problemOf(error: unknown): BatchProblem {
  if (error instanceof Fault) return { code: error.kind, message: error.message };
  const gone = (error as NodeJS.ErrnoException).code === "ENOENT";
  return { code: "server_error", message: gone ? "Its file is gone." : "Internal server error." };
}

/** The store does not answer, or the server is ending: that is no fault of the batch. */
function isInterruption(error: unknown): boolean {
  return error instanceof Fault && (error.kind === "policy_unavailable" || error.kind === "draining");
}
