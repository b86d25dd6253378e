/**
 * Files beneath a folder that was opened once, reached by descriptors alone.
 *
 * Invariants (Wall: T112): no link is followed, neither on the way nor at the end, and the folder is the one that was opened, whatever
 * its path means later; what is opened is a regular file with one name, found out on the descriptor that is read. So
 * nothing that is changed between a check and a use changes what is read.
 * Node has no openat: /proc/self/fd/N/name is one, so this is for Linux.
 * Callers: egress/media/local.ts, integrity/_rooted-file.ts.
 */
import { constants, type Stats } from "node:fs";
import { type FileHandle, open, readlink } from "node:fs/promises";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const MAX_DEPTH = 64;

export class BeneathError extends Error {
  override readonly name = "BeneathError";
}

/** Throws where what was opened is not as it should be: the folders from the first one down, then the file. */
export type Judge = (stats: Stats, what: "folder" | "file") => void;

export class Beneath {
  readonly #folder: FileHandle;

  private constructor(folder: FileHandle) {
    this.#folder = folder;
  }

  /** @throws BeneathError for people: not a folder, or a system without /proc */
  static async open(path: string): Promise<Beneath> {
    const folder = await open(path, O_RDONLY | O_DIRECTORY).catch((error: NodeJS.ErrnoException) => {
      throw new BeneathError(`${path} is not a folder that can be opened (${error.code ?? "error"})`, { cause: error });
    });
    try {
      await (await open(`/proc/self/fd/${folder.fd}`, O_RDONLY | O_DIRECTORY)).close();
    } catch {
      await folder.close();
      throw new BeneathError("this system cannot open files relative to a folder (there is no /proc)");
    }
    return new Beneath(folder);
  }

  /** @param names one a folder, and the file's. @throws BeneathError, which says as little as a stranger may know */
  async read(names: readonly string[], maxBytes: number): Promise<Buffer> {
    const file = await this.file(names);
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw new BeneathError("it is not a file that may be read");
      const bytes = Buffer.alloc(size);
      for (let at = 0; at < size; ) {
        const { bytesRead } = await file.read(bytes, at, size - at, at);
        if (bytesRead === 0) throw new BeneathError("it became shorter while it was read");
        at += bytesRead;
      }
      return bytes;
    } finally {
      await file.close();
    }
  }

  /** Open, for the caller to close. @throws BeneathError, its cause a system error's if there was one; what the judge throws */
  async file(names: readonly string[], judge?: Judge): Promise<FileHandle> {
    if (names.length === 0 || names.length > MAX_DEPTH || !names.every(isName))
      throw new BeneathError("it is not a path of plain names");
    judge?.(await this.#folder.stat(), "folder");
    let at = this.#folder;
    for (const [index, name] of names.entries()) {
      const what = index === names.length - 1 ? "file" : "folder";
      at = await step(at, name, what, judge).finally(() => (at === this.#folder ? undefined : at.close()));
    }
    return at;
  }

  /** Where the folder lies now. */
  place(): Promise<string> {
    return readlink(`/proc/self/fd/${this.#folder.fd}`);
  }

  async close(): Promise<void> {
    await this.#folder.close();
  }
}

/** From a folder to what is in it. */
async function step(from: FileHandle, name: string, what: "folder" | "file", judge?: Judge): Promise<FileHandle> {
  const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | (what === "folder" ? O_DIRECTORY : 0);
  const next = await open(`/proc/self/fd/${from.fd}/${name}`, flags).catch((error: unknown) => {
    throw new BeneathError("it is not there, or not to be opened", { cause: error });
  });
  try {
    const stats = await next.stat();
    if (what === "file" && !stats.isFile()) throw new BeneathError("it is not a file that may be read");
    judge?.(stats, what);
    if (what === "file" && stats.nlink !== 1) throw new BeneathError("it is not a file that may be read");
    return next;
  } catch (error) {
    await next.close();
    throw error;
  }
}

function isName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0");
}
