/**
 * Files beneath a folder that was opened once, reached by descriptors alone.
 *
 * Invariants (Wall: T112): no link is followed, neither on the way nor at the end, and the folder is the one that was opened, whatever
 * its path means later; what is opened is a regular file with one name, found out on the descriptor that is read. So
 * nothing that is changed between a check and a use changes what is read.
 * Node has no openat: /proc/self/fd/N/name is one, so this is for Linux.
 */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const MAX_DEPTH = 64;

export class BeneathError extends Error {
  override readonly name = "BeneathError";
}

export class Beneath {
  readonly #folder: FileHandle;

  private constructor(folder: FileHandle) {
    this.#folder = folder;
  }

  /** @throws BeneathError for people: not a folder, or a system without /proc */
  static async open(path: string): Promise<Beneath> {
    const folder = await open(path, O_RDONLY | O_DIRECTORY).catch((error: NodeJS.ErrnoException) => {
      throw new BeneathError(`${path} is not a folder that can be opened (${error.code ?? "error"})`);
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
  async file(names: readonly string[], maxBytes: number): Promise<Buffer> {
    const file = await this.#reach(names);
    try {
      const stat = await file.stat();
      const { size } = stat;
      if (!stat.isFile() || stat.nlink !== 1 || size > maxBytes)
        throw new BeneathError("it is not a file that may be read");
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

  async close(): Promise<void> {
    await this.#folder.close();
  }

  async #reach(names: readonly string[]): Promise<FileHandle> {
    if (names.length === 0 || names.length > MAX_DEPTH || !names.every(isName))
      throw new BeneathError("it is not a path of plain names");
    let at = this.#folder;
    for (const [index, name] of names.entries()) {
      const last = index === names.length - 1;
      const flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY);
      const next = await open(`/proc/self/fd/${at.fd}/${name}`, flags).catch(() => undefined);
      if (at !== this.#folder) await at.close();
      if (next === undefined) throw new BeneathError("it is not there, or not to be opened");
      at = next;
    }
    return at;
  }
}

function isName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !name.includes("/") && !name.includes("\0");
}
