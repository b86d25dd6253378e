/**
 * A batch's output: rows in the order of the input's lines, and beside them a small file that says of which input they
 * are and how many are surely on the disk. The rows that stand there say what is done.
 *
 * Invariants: rows are only ever added, whole; a row counts as there when it is, so that whoever is killed at any moment
 * goes on behind the last whole row, without one twice and without one lost; rows of one input are never continued with
 * another's. Callers: the runners of batches, one a file at a time.
 */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { JsonError, parseJson, stringifyJson, tryParseJson } from "#base/json.ts";

/** What the rows are of; all of it has to be the same for them to go on. */
export interface BatchIdentity {
  /** SHA-256 of the input, hex. */
  readonly input: string;
  readonly model: string;
}

/** The output cannot be gone on with; a sentence for people. */
export class OutputError extends Error {
  override readonly name = "OutputError";
}

/** Rows from one wait for the disk to the next; at most this many are done again after a power cut. */
const GROUP = 64;
const GROUP_MS = 1000;
const PIECE = 1 << 20;
const MAX_STATE = 4096;

const State = z.strictObject({
  version: z.literal(1),
  input: z.string(),
  model: z.string(),
  rows: z.int().min(0),
  bytes: z.int().min(0),
});
type State = z.infer<typeof State>;

export function statePath(output: string): string {
  return `${output}.state`;
}

export class BatchOutput {
  readonly #path: string;
  readonly #identity: BatchIdentity;
  readonly #file: FileHandle;
  #rows: number;
  #bytes: number;
  #synced: number;
  #syncedAt = performance.now();

  private constructor(path: string, identity: BatchIdentity, file: FileHandle, rows: number, bytes: number) {
    this.#path = path;
    this.#identity = identity;
    this.#file = file;
    this.#rows = rows;
    this.#synced = rows;
    this.#bytes = bytes;
  }

  /** Goes on with what stands there, or begins anew where no run was broken off. @throws OutputError | system errors */
  static async open(path: string, identity: BatchIdentity): Promise<BatchOutput> {
    const state = await readState(path);
    if (state !== undefined && (state.input !== identity.input || state.model !== identity.model)) {
      const what = state.input === identity.input ? "of another model" : "of another input";
      throw new OutputError(
        `${path} holds the rows of a run that was broken off and is ${what}: finish that one, or delete ${statePath(path)} to begin anew`,
      );
    }
    const file = await open(path, state === undefined ? "w+" : "r+", 0o600).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT" || state === undefined) throw error;
      throw new OutputError(`${path} is gone, and ${statePath(path)} says that it is half done: delete that, too`);
    });
    try {
      if (!(await file.stat()).isFile()) throw new OutputError(`${path} is not a plain file`);
      const { rows, bytes } = state === undefined ? { rows: 0, bytes: 0 } : await whole(file, path, state);
      await file.truncate(bytes);
      const output = new BatchOutput(path, identity, file, rows, bytes);
      await output.sync();
      return output;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Rows that stand there. */
  get rows(): number {
    return this.#rows;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a row; it has no line feed of its own. */
  async append(row: string): Promise<void> {
    const bytes = Buffer.from(`${row}\n`);
    for (let at = 0; at < bytes.length; ) {
      const { bytesWritten } = await this.#file.write(bytes, at, bytes.length - at, this.#bytes + at);
      at += bytesWritten;
    }
    this.#bytes += bytes.length;
    this.#rows++;
    const due = this.#rows - this.#synced >= GROUP || performance.now() - this.#syncedAt >= GROUP_MS;
    if (due) await this.sync();
  }

  /** Until everything is on the disk, and known to be. */
  async sync(): Promise<void> {
    await this.#file.datasync();
    const { input, model } = this.#identity;
    await writeState(this.#path, { version: 1, input, model, rows: this.#rows, bytes: this.#bytes });
    this.#synced = this.#rows;
    this.#syncedAt = performance.now();
  }

  /** Leaves it to be gone on with. */
  async close(): Promise<void> {
    try {
      await this.sync();
    } finally {
      await this.#file.close();
    }
  }

  /** All lines have their row. */
  async finish(): Promise<void> {
    await this.close();
    await rm(statePath(this.#path), { force: true });
  }
}

/** How far the rows are whole: those that were waited for are, those behind them are looked at. */
async function whole(file: FileHandle, path: string, state: State): Promise<Pick<State, "rows" | "bytes">> {
  let { rows, bytes } = state;
  if ((await file.stat()).size < bytes)
    throw new OutputError(`${path} is shorter than it was: delete ${statePath(path)} to begin anew`);
  let rest = Buffer.alloc(0);
  const piece = Buffer.alloc(PIECE);
  for (let at = bytes; ; ) {
    const { bytesRead } = await file.read(piece, 0, PIECE, at);
    if (bytesRead === 0) return { rows, bytes };
    at += bytesRead;
    rest = Buffer.concat([rest, piece.subarray(0, bytesRead)]);
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      if (!isRow(rest.subarray(0, end))) return { rows, bytes };
      rows++;
      bytes += end + 1;
      rest = rest.subarray(end + 1);
    }
  }
}

function isRow(text: Uint8Array): boolean {
  const value = tryParseJson(text, { maxDepth: 128 });
  return typeof value === "object" && value !== null && !Array.isArray(value) && "custom_id" in value;
}

async function readState(output: string): Promise<State | undefined> {
  const path = statePath(output);
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const text = (await file.stat()).size > MAX_STATE ? "" : await file.readFile();
    return State.parse(parseJson(text));
  } catch (error) {
    if (error instanceof JsonError || error instanceof z.ZodError)
      throw new OutputError(`${path} is not what a run leaves behind: delete it to begin anew`);
    throw error;
  } finally {
    await file.close();
  }
}

/** Whole or not at all. */
async function writeState(output: string, state: State): Promise<void> {
  const path = statePath(output);
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(stringifyJson(state));
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), "r");
  await folder.sync().finally(() => folder.close());
}
