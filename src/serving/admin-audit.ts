/**
 * The audit log over the operations listener: read, verified, and its head to be held elsewhere.
 *
 * Invariants: a caller sees records of what its own tenants did, and without the operator's tenant nothing that tells
 * of the log as a whole (Wall: T83); one verification at a time and few readings, as each may read every file; both end
 * with their call. Made by the app; the routes call it with a grant.
 */
import { Fault } from "#core/fault.ts";
import type { Grant } from "#core/principal.ts";
import type { Known } from "#policy/audit/heads.ts";
import type { RecordFilter } from "#policy/audit/read.ts";
import type { StoredRecord } from "#policy/audit/record.ts";
import type { SignedHead } from "#policy/audit/signing.ts";
import type { Verification } from "#policy/audit/verify.ts";
import { requireOperator } from "#policy/authorize.ts";
import { withinTenants } from "#policy/delegation.ts";
import type { ListRecordsCall } from "#wire/admin/audit.ts";

export interface AuditHead {
  /** Undefined: none was signed yet. */
  readonly head: (Known & SignedHead) | undefined;
  /** PEM. */
  readonly publicKey: string | undefined;
}

/** The log from the outside. @throws system errors of every function: it cannot be read */
export interface AuditReader {
  newest(count: number, filter: RecordFilter, signal: AbortSignal): Promise<readonly StoredRecord[]>;
  verify(signal: AbortSignal): Promise<Verification>;
  head(): AuditHead;
}

const MOST_READINGS = 4;

export class AdminAudit {
  readonly #log: AuditReader | undefined;
  #verifying = 0;
  #reading = 0;

  /** @param log undefined: none is kept */
  constructor(log: AuditReader | undefined) {
    this.#log = log;
  }

  /** The newest records, oldest first. @throws Fault not_implemented | overloaded | policy_unavailable */
  async records(
    { principal }: Grant<"audit:read">,
    { limit, ...filter }: ListRecordsCall,
    signal: AbortSignal,
  ): Promise<readonly StoredRecord[]> {
    const log = this.#kept();
    const within = withinTenants(principal, filter.tenant);
    if (within === undefined) return [];
    if (this.#reading >= MOST_READINGS) throw busy("The log is being read by others.", 1000);
    this.#reading++;
    try {
      return await readable(log.newest(limit, { ...filter, ...within }, signal), signal);
    } finally {
      this.#reading--;
    }
  }

  /** @throws Fault forbidden | not_implemented | overloaded | policy_unavailable */
  async verify({ principal }: Grant<"audit:read">, signal: AbortSignal): Promise<Verification> {
    requireOperator(principal);
    const log = this.#kept();
    if (this.#verifying > 0) throw busy("The log is being verified already.", 10_000);
    this.#verifying++;
    try {
      return await readable(log.verify(signal), signal);
    } finally {
      this.#verifying--;
    }
  }

  /** @throws Fault forbidden | not_implemented */
  head({ principal }: Grant<"audit:read">): AuditHead {
    requireOperator(principal);
    return this.#kept().head();
  }

  #kept(): AuditReader {
    if (this.#log === undefined)
      throw new Fault("not_implemented", "No audit log is kept: the server runs with --audit off.");
    return this.#log;
  }
}

function busy(message: string, retryAfterMs: number): Fault {
  return new Fault("overloaded", message, { retryAfterMs });
}

async function readable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Fault("policy_unavailable", "The audit log cannot be read at the moment.", {
      detail: String(error),
      retryAfterMs: 1000,
      cause: error,
    });
  }
}
