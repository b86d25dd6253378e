/**
 * Names that come from a command line or from a hub: what is taken for a repository, a revision and a file path.
 *
 * Invariant: a name that passes may stand in a URL path and in a path under the cache: no traversal, no control
 * character, no separator of any platform but `/` between segments. Rules for repositories are the hub's own
 * (huggingface_hub, validate_repo_id). Pure.
 * Callers: hub.ts, hub-choice.ts, and integrity's cache for its layout.
 */

/** What a hub answers with when it cannot or may not be used. */
export type HubErrorCode =
  | "bad_name"
  | "not_found"
  | "unauthorized"
  | "no_choice"
  | "no_digest"
  | "bad_answer"
  | "unavailable";

export class HubError extends Error {
  readonly code: HubErrorCode;
  constructor(code: HubErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "HubError";
    this.code = code;
  }
}

export interface HubReference {
  readonly org: string;
  readonly repo: string;
  /** A path ending in .gguf, a quantisation (`Q4_K_M`), or absent: hub-choice.ts decides. */
  readonly selector?: string;
}

const REPO_NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$/;
const COMMIT = /^[0-9a-f]{40}$/;
const REVISION = /^[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}$/;
const QUANTISATION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const MAX_PATH_BYTES = 1024;
const MAX_SEGMENT_BYTES = 200;

/**
 * `org/repo`, `org/repo:Q4_K_M`, `org/repo:folder/model.gguf`; without the `hf:` in front.
 * @throws HubError bad_name
 */
export function parseHubReference(text: string): HubReference {
  const colon = text.indexOf(":");
  const name = colon < 0 ? text : text.slice(0, colon);
  const parts = name.split("/");
  const [org, repo] = parts;
  if (parts.length !== 2 || org === undefined || repo === undefined || !isRepoName(org) || !isRepoName(repo)) {
    throw badName("a model on a hub is named hf:org/repo, hf:org/repo:file.gguf or hf:org/repo:quantisation");
  }
  if (colon < 0) return { org, repo };
  const selector = text.slice(colon + 1);
  if (isGguf(selector)) checkFilePath(selector);
  else if (!QUANTISATION.test(selector))
    throw badName("after the colon stands a file ending in .gguf, or a quantisation such as Q4_K_M");
  return { org, repo, selector };
}

export function isGguf(path: string): boolean {
  return path.toLowerCase().endsWith(".gguf");
}

export function isCommit(text: string): boolean {
  return COMMIT.test(text);
}

export function isSha256(text: string): boolean {
  return SHA256.test(text);
}

/** A branch, a tag or a commit. @throws HubError bad_name */
export function checkRevision(revision: string): void {
  if (!REVISION.test(revision) || revision.includes(".."))
    throw badName("the revision is not the name of a branch, a tag or a commit");
}

/** @throws HubError bad_name; the path is not repeated in the message when it could carry control characters. */
export function checkFilePath(path: string): void {
  if (/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(path)) throw badName("a file name has control characters");
  const tooLong = Buffer.byteLength(path) > MAX_PATH_BYTES;
  if (tooLong || /[\\:*?"<>|]/.test(path) || !path.split("/").every(isSegment)) {
    throw badName(`the file name ${path.slice(0, 80)} is not one that is safe to use`);
  }
}

function isSegment(segment: string): boolean {
  return segment !== "" && segment !== "." && segment !== ".." && Buffer.byteLength(segment) <= MAX_SEGMENT_BYTES;
}

function isRepoName(name: string): boolean {
  return REPO_NAME.test(name) && !name.includes("--") && !name.includes("..");
}

function badName(message: string): HubError {
  return new HubError("bad_name", message);
}
