/**
 * A batch's rows and what becomes of them: answers into one file, failures into another. Private to runner.ts.
 */

import { createWriteStream } from "node:fs";
import { rm, stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { newId } from "#base/ids.ts";
import type { Batch, BatchCounts, BatchProblem } from "#core/batches.ts";
import { decodeLine, printUnanswered, ROW_HEAD, rowSucceeded } from "#wire/batch/line.ts";
import type { Files } from "./files.ts";
import { type InputLine, readLines } from "./lines.ts";
import type { Held } from "./room.ts";

export const EXPIRED: BatchProblem = {
  code: "batch_expired",
  message: "This request could not be executed before the completion window expired.",
};
export const CANCELLED: BatchProblem = {
  code: "batch_cancelled",
  message: "This request was not executed: the batch was cancelled.",
};

/** Rows are this server's own, however long. */
const ROW_BYTES = Number.MAX_SAFE_INTEGER;

export interface Results {
  readonly outputFileId?: string;
  readonly errorFileId?: string;
}

export function unansweredRow({ text }: InputLine, { code, message }: BatchProblem): string {
  return printUnanswered(newId(), text === undefined ? null : decodeLine(text).customId, code, message);
}

export async function countRows(path: string): Promise<Omit<BatchCounts, "total">> {
  const counts = { completed: 0, failed: 0 };
  for await (const { text } of readLines(path, ROW_BYTES))
    if (text !== undefined && rowSucceeded(headOf(text))) counts.completed++;
    else counts.failed++;
  return counts;
}

/** The files that have any row. @param left lines without a row, whose time is over @throws what the disk or the store throws */
export async function splitRows(
  { id, tenant, author }: Batch,
  rows: string,
  left: AsyncIterable<InputLine> | undefined,
  { files, held }: { readonly files: Files; readonly held: Held },
): Promise<Results> {
  const made: { -readonly [N in keyof Results]: Results[N] } = {};
  for (const [field, ending, good] of [
    ["outputFileId", "output", true],
    ["errorFileId", "error", false],
  ] as const) {
    const path = partPath(rows, ending);
    const chosen = rowsOf(rows, good, good ? undefined : left);
    await pipeline(chosen, createWriteStream(path, { mode: 0o600, flush: true }));
    if ((await stat(path)).size === 0) {
      await rm(path, { force: true });
      continue;
    }
    // The same at every try, so that a crash leaves no second one.
    const file = `file-${id.slice("batch_".length)}_${ending}`;
    const name = `${id}_${ending}.jsonl`;
    await files.adoptOutput(path, { id: file, tenant, createdBy: author.id, name }, held);
    made[field] = file;
  }
  return made;
}

/** What lies there while the rows are split. */
export function partPath(rows: string, ending: "output" | "error"): string {
  return `${rows}.${ending}`;
}

async function* rowsOf(
  path: string,
  good: boolean,
  left: AsyncIterable<InputLine> | undefined,
): AsyncGenerator<Uint8Array> {
  const end = Buffer.from("\n");
  for await (const { text } of readLines(path, ROW_BYTES))
    if (text !== undefined && rowSucceeded(headOf(text)) === good) yield Buffer.concat([text, end]);
  if (left === undefined) return;
  for await (const line of left) yield Buffer.from(`${unansweredRow(line, EXPIRED)}\n`);
}

function headOf(text: Uint8Array): string {
  return Buffer.from(text.buffer, text.byteOffset, Math.min(text.length, ROW_HEAD)).toString();
}
