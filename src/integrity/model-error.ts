/**
 * The one failure of getting a model: a closed code and a sentence for the person who starts the server.
 *
 * Invariant: the message holds no token and no signed URL. `toModelError` is the single boundary where failures
 * of the network, the hub and the file system become this.
 * Callers: integrity/; app and cli print the message.
 */

import { HubError, type HubErrorCode } from "#egress/hub-names.ts";
import { EgressError, type EgressErrorCode } from "#egress/policy.ts";

/**
 * Besides the codes of the hub and of the way out. `digest`: the bytes are not the ones that the hub describes ·
 * `size`: nor is their count · `directory`: the cache directory is not ours alone · `disk`: no room, or the disk
 * refuses · `offline`: it is not in the cache and the network may not be used.
 */
export type ModelErrorCode = HubErrorCode | EgressErrorCode | "digest" | "size" | "directory" | "disk" | "offline";

export class ModelError extends Error {
  readonly code: ModelErrorCode;
  constructor(code: ModelErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "ModelError";
    this.code = code;
  }
}

/** Anything else (a bug) is given back as it is. */
export function toModelError(error: unknown): unknown {
  if (error instanceof HubError || error instanceof EgressError)
    return new ModelError(error.code, error.message, error);
  if (error instanceof DOMException && error.name === "AbortError")
    return new ModelError("aborted", "the download was stopped", error);
  const code = systemCode(error);
  if (code === "ENOSPC" || code === "EDQUOT") return new ModelError("disk", "the disk is full", error);
  if (code === "ELOOP") return new ModelError("directory", "a file in the cache is a symbolic link", error);
  if (code !== undefined) return new ModelError("disk", `the cache cannot be read or written (${code})`, error);
  return error;
}

/** `ENOENT` and its kind; undefined for what is no failure of a system call. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && "syscall" in error && "code" in error ? String(error.code) : undefined;
}
