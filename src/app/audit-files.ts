/**
 * A log from the outside: where it is, and what is known of it besides, for the commands and routes that read it.
 */
import { readFileSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { Environment } from "#config/environment.ts";
import { resolveSettings } from "#config/resolve.ts";
import { headFile, parseHead } from "#policy/audit/heads.ts";
import { auditDirectory } from "#policy/audit/open.ts";
import { PUBLIC_FILE, readPublicKey } from "#policy/audit/signing.ts";
import type { VerifyOptions } from "#policy/audit/verify.ts";
import { stateDirectory } from "./paths.ts";
import { StartupError } from "./startup-error.ts";

export interface AuditFilesOptions {
  /** Of the log; absent: as the settings say. */
  readonly directory?: string | undefined;
  readonly stateDir?: string | undefined;
}

export interface AuditFiles {
  readonly directory: string;
  /** PEM; undefined: there is no state directory beside it. */
  readonly publicKey: string | undefined;
  /** What the server kept of it at its last checkpoint. */
  readonly head: ReturnType<typeof parseHead>;
}

/** @throws SettingError | StartupError there is no such directory */
export function auditFiles({ directory, stateDir }: AuditFilesOptions, env: Environment): AuditFiles {
  const { settings } = resolveSettings([], env);
  const state = resolve(stateDirectory(stateDir ?? settings.stateDir, env));
  const log = directory === undefined ? auditDirectory(state, settings.auditDir) : resolve(directory);
  if (statSync(log, { throwIfNoEntry: false })?.isDirectory() !== true)
    throw new StartupError(`there is no audit log in ${log} (name its folder, or --state-dir)`);
  return filesOf(log, state);
}

/** @param state the state directory of the server that writes the log */
export function filesOf(directory: string, state: string): AuditFiles {
  return {
    directory,
    publicKey: optional(join(state, PUBLIC_FILE))?.toString("utf8"),
    head: parseHead(optional(join(state, headFile(directory)))),
  };
}

const HASH = /^[0-9a-f]{64}$/;

/**
 * What a log is to be held against.
 * @param given a file with a public key, and a hash, as the user named them
 * @throws StartupError one of them is of no use
 */
export function evidence(
  files: AuditFiles,
  given: { readonly publicKey?: string | undefined; readonly head?: string | undefined },
): Required<Pick<VerifyOptions, "heads">> & Pick<VerifyOptions, "publicKey"> {
  const { publicKey, head } = given;
  if (head !== undefined && !HASH.test(head))
    throw new StartupError("--head takes the hash of a record: 64 hex digits");
  const pem = publicKey === undefined ? files.publicKey : optional(publicKey)?.toString("utf8");
  const key = pem === undefined ? undefined : readPublicKey(pem);
  if (publicKey !== undefined && key === undefined)
    throw new StartupError(`${publicKey} does not hold an Ed25519 public key`);
  const heads = [...(head === undefined ? [] : [{ hash: head }]), ...(files.head === undefined ? [] : [files.head])];
  return { heads, ...(key === undefined ? {} : { publicKey: key }) };
}

function optional(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}
