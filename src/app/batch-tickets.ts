/**
 * What a batch's lines show at the door: a ticket that stands for who made the batch, for as long as the batch runs.
 *
 * Wall: T75. A ticket is random, in memory alone, kept as a digest, and is given to nobody; who it stands for is asked
 * anew, so that a withdrawn key's batches end with it, and it opens no more than its author could when the batch was made.
 */
import { createHash, randomBytes } from "node:crypto";
import { Secret } from "#base/secret.ts";
import type { Batch } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import { keyStatus } from "#core/key-status.ts";
import type { Principal } from "#core/principal.ts";
import type { KeyStore } from "#policy/key-store.ts";
import { principalOf } from "#policy/roles.ts";

/** How long an answer about the author holds. */
const FRESH_MS = 2000;

export interface TicketParts {
  /** Keys of the store. */
  readonly keys: Pick<KeyStore, "get">;
  /** Whether the operator gave a key of this id with this start. */
  readonly isGiven: (id: string) => boolean;
}

export interface Ticket {
  readonly key: Secret;
  /** @throws Fault unauthenticated: the author may not call any more */
  renew(): Promise<void>;
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
      renew: async () => {
        if (performance.now() - asked < FRESH_MS) return;
        asking ??= present(batch, parts).finally(() => {
          asking = undefined;
        });
        const principal = await asking;
        asked = performance.now();
        if (!revoked) this.#principals.set(name, principal);
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

async function present({ author, tenant }: Batch, { keys, isGiven }: TicketParts): Promise<Principal> {
  const then = Object.freeze({ ...principalOf({ ...author, tenant }), behind: true as const });
  if (author.kind !== "key" || isGiven(author.id)) return then;
  const record = await keys.get(author.id).catch((error: unknown) => {
    throw new Fault("policy_unavailable", "The store of keys does not answer at the moment.", { cause: error });
  });
  const status = record === undefined ? "deleted" : keyStatus(record, Date.now());
  if (record === undefined || status !== "active")
    throw new Fault("unauthenticated", "The key that made the batch may not be used any more.");
  const { networks: _, ...reach } = record.reach;
  const now = principalOf({ ...record, kind: "key", reach });
  return Object.freeze({ ...now, behind: true as const });
}
