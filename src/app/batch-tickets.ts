/**
 * What a batch's lines show at the door: a ticket that stands for who made the batch, for as long as the batch runs.
 *
 * Wall: T75. A ticket is random, in memory alone, kept as a digest, and is given to nobody; who it stands for is asked
 * anew, so that batches end with the key, or the rules for tokens or certificates, by which they were made. A token's or
 * certificate's own end is none: the window bounds what it leaves behind.
 */
import { createHash, randomBytes } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { Secret } from "#base/secret.ts";
import type { Batch } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { keyStatus } from "#core/key-status.ts";
import type { Principal, Scope } from "#core/principal.ts";
import type { KeyStore } from "#policy/key-store.ts";
import { principalOf } from "#policy/roles.ts";

/** How long an answer about the author holds. */
const FRESH_MS = 2000;
/** Until a store that is away is asked again. */
const AGAIN_MS = 1000;

export interface TicketParts {
  /** Keys of the store. */
  readonly keys: Pick<KeyStore, "get">;
  /** Whether the operator gave a key of this id with this start. */
  readonly isGiven: (id: string) => boolean;
  /** Whether the rules that made the principal of a token or certificate hold still. */
  readonly stands: (kind: "token" | "certificate", mark: string) => boolean;
  /** What the batch's endpoint asks for. */
  readonly needs: Scope;
}

export interface Ticket {
  readonly key: Secret;
  /** @throws Fault unauthenticated | forbidden: the author may not call any more | the signal's reason */
  renew(signal: AbortSignal): Promise<void>;
  revoke(): void;
}

export class BatchTickets {
  readonly #principals = new Map<string, Principal>();

  find(credential: string): Principal | undefined {
    return this.#principals.size === 0 ? undefined : this.#principals.get(digest(credential));
  }

  issue(batch: Batch, parts: TicketParts): Ticket {
    const key = new Secret(`ctt_${randomBytes(32).toString("base64url")}`);
    const name = digest(key.expose());
    let [asked, revoked] = [Number.NEGATIVE_INFINITY, false];
    let asking: Promise<Principal> | undefined;
    return {
      key,
      renew: async (signal) => {
        while (performance.now() - asked >= FRESH_MS) {
          asking ??= present(batch, parts).finally(() => {
            asking = undefined;
          });
          const principal = await asking.catch(asLater);
          if (principal === undefined) await wait(AGAIN_MS, undefined, { signal });
          else {
            asked = performance.now();
            if (!revoked) this.#principals.set(name, principal);
          }
        }
      },
      revoke: () => {
        revoked = true;
        this.#principals.delete(name);
      },
    };
  }
}

function digest(credential: string): string {
  return createHash("sha256").update(credential).digest("base64");
}

/** A store that is away is no answer: lines wait for one. */
function asLater(error: unknown): undefined {
  if (error instanceof Fault && error.kind === "policy_unavailable") return undefined;
  throw error;
}

async function present(batch: Batch, parts: TicketParts): Promise<Principal> {
  const now = await author(batch, parts);
  if (!now.scopes.has("batch") || !now.scopes.has(parts.needs))
    throw new Fault("forbidden", "Who made the batch may not have it done any more.");
  return Object.freeze({ ...now, behind: true as const });
}

async function author({ author, tenant }: Batch, { keys, isGiven, stands }: TicketParts): Promise<Principal> {
  const { id, kind, ruledBy } = author;
  const then = principalOf({ ...author, tenant });
  if (kind === "server" || (kind === "key" && isGiven(id))) return then;
  if (kind !== "key") {
    if (ruledBy !== undefined && stands(kind, ruledBy)) return then;
    throw ended(`The rules by which the ${kind} was taken that made the batch hold no more.`);
  }
  const record = await keys.get(id).catch((error: unknown) => {
    throw new Fault("policy_unavailable", "The store of keys does not answer at the moment.", { cause: error });
  });
  if (record === undefined || keyStatus(record, Date.now()) !== "active" || record.tenant !== tenant)
    throw ended("The key that made the batch may not be used any more.");
  const { networks: _, ...reach } = record.reach;
  return principalOf({ ...record, kind: "key", reach });
}

function ended(message: string): Fault {
  return new Fault("unauthenticated", message);
}
