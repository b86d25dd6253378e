/**
 * Where heads are kept besides the log: in the state directory, so that a cut log shows at the next start, and in the
 * operator's file, so that somebody else can hold them.
 *
 * A head that cannot be published is told to `failed`, and stops nothing: the log itself is whole without it.
 * Callers: the writer; verification reads what was kept.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { appendFile, open, rename } from "node:fs/promises";
import { join, resolve } from "node:path";
import { JsonError, parseJson, stringifyJson } from "#base/json.ts";
import type { StateDirectory } from "#policy/state.ts";
import type { SignedHead } from "./signing.ts";

/** How far the log was known to go. */
export interface Known {
  readonly chain: string;
  /** Of the file that held it. */
  readonly number: number;
  readonly seq: number;
  readonly hash: string;
}

export interface Heads {
  /** Undefined: none was kept, or it cannot be read. @throws StateError */
  last(): (Known & SignedHead) | undefined;
  publish(head: SignedHead, number: number): Promise<void>;
}

export interface HeadsOptions {
  readonly state: StateDirectory;
  /** The log's. */
  readonly directory: string;
  /** --audit-checkpoint-file: a line a checkpoint. */
  readonly file: string | undefined;
  readonly failed: (error: unknown) => void;
}

export function keptHeads({ state, directory, file, failed }: HeadsOptions): Heads {
  const name = headFile(directory);
  return {
    last: () => parseHead(state.read(name)),
    publish: async (head, number) => {
      const text = `${stringifyJson({ ...head, number })}\n`;
      const exported = file === undefined ? undefined : appendFile(file, text, { mode: 0o644 });
      for (const done of await Promise.allSettled([replace(join(state.path, name), text), exported]))
        if (done.status === "rejected") failed(done.reason);
    },
  };
}

/** One for each directory: two logs under one state directory do not know of each other. */
export function headFile(directory: string): string {
  return `audit-head-${createHash("sha256").update(resolve(directory)).digest("hex").slice(0, 16)}.json`;
}

/** Whole or not at all. */
async function replace(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}`;
  const file = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600);
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

export function parseHead(bytes: Uint8Array | undefined): (Known & SignedHead) | undefined {
  if (bytes === undefined) return undefined;
  try {
    const head = parseJson(bytes) as unknown as Known & SignedHead;
    const whole = Number.isSafeInteger(head.seq) && Number.isSafeInteger(head.number);
    const texts = [head.chain, head.hash, head.time, head.signature, head.key];
    return whole && texts.every((text) => typeof text === "string") ? head : undefined;
  } catch (error) {
    if (error instanceof JsonError || error instanceof TypeError) return undefined;
    throw error;
  }
}
