/**
 * What the parts of administration have in common: how a caller stands in the audit log, and how failures of the store
 * and of the log are told. Callers: admin-*.ts.
 */
import { Fault } from "#core/fault.ts";
import type { Principal } from "#core/principal.ts";
import { AuditFailure } from "#policy/audit/log.ts";
import type { Actor, EventKind } from "#policy/audit/record.ts";
import { KeyError } from "#policy/key-spec.ts";

/** Writes to the audit log; resolves once it is on the disk. @throws AuditFailure */
export type RecordEvent = (
  kind: EventKind,
  actor: Actor,
  subject: string | undefined,
  details?: object,
) => Promise<void>;

export function actorOf({ kind, id, tenant }: Principal): Actor {
  return { kind, id, tenant };
}

/** @throws Fault policy_unavailable: it cannot be recorded, and so may not be done */
export async function recorded(record: Promise<void>): Promise<void> {
  try {
    await record;
  } catch (error) {
    if (!(error instanceof AuditFailure)) throw error;
    throw new Fault("policy_unavailable", "Nothing was changed: the change cannot be recorded.", {
      detail: error.message,
      retryAfterMs: 1000,
      cause: error,
    });
  }
}

/** What the store says. @throws Fault invalid_request: the store will not have it so | policy_unavailable: it does not answer */
export async function stored<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof Fault) throw error;
    if (error instanceof KeyError) throw refusal(error);
    throw new Fault("policy_unavailable", "The store of keys and usage does not answer at the moment.", {
      detail: String(error),
      retryAfterMs: 1000,
      cause: error,
    });
  }
}

/** The words of policy with the names of the wire. */
export function refusal({ message }: KeyError): Fault {
  return new Fault("invalid_request", message.replace(/^reach\./, ""));
}
