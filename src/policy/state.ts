/**
 * The state directory: what the server keeps between starts, in files that its user alone can read.
 *
 * Invariants: the directory is a real one (no symlink), ours, and writable by nobody else; a file in it is regular,
 * ours, and neither readable nor writable by others. Everything else is refused, not repaired: who
 * could write here could already have put a key of their own in place (Wall: T02).
 * Synchronous, since it is used at start only.
 */
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  writeSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { isForeign, isOpen, OTHERS_ANY, OTHERS_WRITE } from "#base/owner.ts";

/** Larger files are not ours. */
const MAX_FILE_BYTES = 1 << 20;
const PEPPER_BYTES = 32;
const NAME = /^[a-z][a-z0-9.-]{0,63}$/;

/** The operator has to look at this; the message says what to do. */
export class StateError extends Error {
  override readonly name = "StateError";
}

export interface StateDirectory {
  readonly path: string;
  /** The file's bytes; undefined: there is none. @throws StateError */
  read(name: string): Buffer | undefined;
  /** Replaces the file, whole or not at all. @throws StateError */
  write(name: string, content: Uint8Array): void;
  /** Makes the file unless it is there. @returns whether this call made it */
  create(name: string, content: Uint8Array): boolean;
  /**
   * The path of a file that somebody else opens by its name: there, ours and private, as are those beside it whose
   * names begin with its name. Of any size. @throws StateError
   */
  reserve(name: string): string;
  /** Gives a file another name, in place of what has it. @throws StateError */
  move(from: string, to: string): void;
}

/** Makes the directory (mode 0700, parents too) where it is missing. @param what for messages. @throws StateError */
export function openStateDirectory(path: string, what = "state directory"): StateDirectory {
  const directory = resolve(path);
  makeMissing(directory, what);
  checkDirectory(directory, what);
  return {
    path: directory,
    read: (name) => readPrivate(join(directory, checked(name))),
    write: (name, content) => place(directory, checked(name), content, renameSync),
    create: (name, content) => createOnce(directory, checked(name), content),
    reserve: (name) => reserve(directory, checked(name)),
    move: (from, to) => move(directory, checked(from), checked(to)),
  };
}

/** 32 random bytes, made at the first use. @throws StateError a damaged file */
export function statePepper(state: StateDirectory): Buffer {
  state.read("pepper") ?? state.create("pepper", randomBytes(PEPPER_BYTES));
  const pepper = state.read("pepper");
  if (pepper?.length !== PEPPER_BYTES) {
    throw new StateError(
      `${join(state.path, "pepper")} is damaged: it should hold ${PEPPER_BYTES} bytes. Restore it: no key works without it.`,
    );
  }
  return pepper;
}

function checked(name: string): string {
  if (!NAME.test(name)) throw new StateError(`${JSON.stringify(name)} is not a name for a state file`);
  return name;
}

function makeMissing(directory: string, what: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new StateError(`the ${what} ${directory} cannot be made: ${reason(error)}`);
  }
}

function checkDirectory(directory: string, what: string): void {
  const stats = lstatSync(directory);
  if (!stats.isDirectory())
    throw new StateError(`the ${what} ${directory} is not a directory (a symbolic link is not taken)`);
  if (isForeign(stats)) throw new StateError(`the ${what} ${directory} belongs to another user`);
  if (isOpen(stats, OTHERS_WRITE)) {
    throw new StateError(
      `the ${what} ${directory} is writable by others: run chmod 700 on it, after a look at what is in it`,
    );
  }
}

function readPrivate(path: string): Buffer | undefined {
  const descriptor = openExisting(path);
  if (descriptor === undefined) return undefined;
  try {
    const stats = fstatSync(descriptor);
    judge(path, stats);
    if (stats.size > MAX_FILE_BYTES) throw new StateError(`${path} is larger than ${MAX_FILE_BYTES} bytes`);
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function reserve(directory: string, name: string): string {
  const path = join(directory, name);
  if (!existsSync(path)) createOnce(directory, name, new Uint8Array());
  for (const beside of readdirSync(directory)) if (beside.startsWith(name)) checkPrivate(join(directory, beside));
  return path;
}

function move(directory: string, from: string, to: string): void {
  try {
    renameSync(join(directory, from), join(directory, to));
    syncDirectory(directory);
  } catch (error) {
    throw new StateError(`${join(directory, from)} cannot be renamed: ${reason(error)}`);
  }
}

function checkPrivate(path: string): void {
  const descriptor = openExisting(path);
  if (descriptor === undefined) return;
  try {
    judge(path, fstatSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

function judge(path: string, stats: Stats): void {
  if (!stats.isFile() || isForeign(stats)) throw new StateError(`${path} is not a plain file of ours`);
  if (isOpen(stats, OTHERS_ANY))
    throw new StateError(
      `${path} can be read or written by others: its secrets may be known; run chmod 600 on it or replace it`,
    );
}

function openExisting(path: string): number | undefined {
  try {
    // NONBLOCK: opening a FIFO must not hang. NOFOLLOW: a symlink is an error.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new StateError(`${path} cannot be opened: ${reason(error)}`);
  }
}

function createOnce(directory: string, name: string, content: Uint8Array): boolean {
  try {
    // link, unlike rename, fails where the name is taken: of two servers that start at once one wins, whole.
    place(directory, name, content, (from, to) => {
      linkSync(from, to);
      rmSync(from);
    });
    return true;
  } catch (error) {
    if (error instanceof StateError && (error.cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

/** temporary file → fsync → `settle` into its name → fsync of the directory. */
function place(directory: string, name: string, content: Uint8Array, settle: (from: string, to: string) => void): void {
  const temporary = join(directory, `.${name}.${randomBytes(8).toString("hex")}`);
  try {
    writeSynced(temporary, content);
    settle(temporary, join(directory, name));
    syncDirectory(directory);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new StateError(`${join(directory, name)} cannot be written: ${reason(error)}`, { cause: error });
  }
}

function writeSynced(path: string, content: Uint8Array): void {
  const descriptor = openSync(path, "wx", 0o600);
  try {
    for (let at = 0; at < content.length; ) at += writeSync(descriptor, content, at);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function syncDirectory(directory: string): void {
  if (process.platform === "win32") return;
  const descriptor = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function reason(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "unknown reason";
}
