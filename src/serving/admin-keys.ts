/**
 * Keys over the operations listener: looked at, made, rotated, disabled, enabled, deleted.
 *
 * Invariants: what belongs to a tenant that the caller does not administer does not exist for it (Wall: T83); no change
 * reaches beyond the caller (Wall: T84); a change stands in the audit log before it is done, and counts on this server
 * before it is answered. Made by the app; the routes call it with a grant.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { Grant, Principal } from "#core/principal.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { EventKind } from "#policy/audit/record.ts";
import { administers, excessOf, type KeyRights, reachExcess, withinTenants } from "#policy/delegation.ts";
import { checkKeySpec, KeyError, type KeySpec } from "#policy/key-spec.ts";
import type { KeyRecord, KeyStore, NewKey } from "#policy/key-store.ts";
import { mintKeyId } from "#policy/keys.ts";
import type { CreateKeyCall, ListKeysCall } from "#wire/admin/keys.ts";
import { actorOf, type RecordEvent, recorded, refusal, stored } from "./_administration.ts";

export type KeyBook = Pick<KeyStore, "list" | "get" | "create" | "rotate" | "disable" | "enable" | "delete">;
export type KeyChange = "disable" | "enable" | "delete";

export interface AdminKeysOptions {
  readonly keys: KeyBook;
  /** Takes over what changed in the store, on this server. */
  readonly refresh: () => Promise<void>;
  readonly record: RecordEvent;
  /** The server's. */
  readonly caps: RequestCaps;
  readonly now?: () => number;
}

export interface KeyPage {
  readonly keys: readonly KeyRecord[];
  /** Whether another one follows. */
  readonly more: boolean;
}

export class AdminKeys {
  readonly #options: AdminKeysOptions;
  readonly #now: () => number;

  constructor(options: AdminKeysOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** A page, oldest first. @throws Fault key_not_found: the key to go on behind */
  async list({ principal }: Grant<"keys:read">, { limit, after, ...filter }: ListKeysCall): Promise<KeyPage> {
    const within = withinTenants(principal, filter.tenant);
    if (within === undefined) return { keys: [], more: false };
    const last = after === undefined ? undefined : await this.#visible(principal, after, "after");
    const found = await stored(
      this.#options.keys.list({
        ...filter,
        ...within,
        ...(last === undefined ? {} : { after: last }),
        limit: limit + 1,
      }),
    );
    return { keys: found.slice(0, limit), more: found.length > limit };
  }

  /** @throws Fault key_not_found */
  async show({ principal }: Grant<"keys:read">, id: string): Promise<KeyRecord> {
    return this.#visible(principal, id);
  }

  /** @throws Fault invalid_request | forbidden | policy_unavailable */
  async create({ principal }: Grant<"keys:write">, call: CreateKeyCall): Promise<NewKey> {
    const spec: KeySpec = { ...call, tenant: call.tenant ?? principal.tenant };
    if (!administers(principal, spec.tenant)) throw forbidden(principal, "tenant: it looks after its own alone");
    if (spec.expiresAt !== undefined && spec.expiresAt <= this.#now())
      throw invalid("expires_at", "The key would have expired already.");
    try {
      checkKeySpec(spec);
    } catch (error) {
      throw error instanceof KeyError ? refusal(error) : error;
    }
    this.#mayGive(principal, spec);
    const { tenant, name, role, scopes = null } = spec;
    const id = mintKeyId();
    await this.#record(principal, "key.create", id, { tenant, name, role, scopes });
    const made = await stored(this.#options.keys.create(spec, principal.id, id));
    await this.#follow();
    return made;
  }

  /** The next generation. @throws Fault key_not_found | forbidden | invalid_request | policy_unavailable */
  async rotate({ principal }: Grant<"keys:write">, id: string, overlapSeconds: number): Promise<NewKey> {
    await this.#ownable(principal, id, excessOf);
    await this.#record(principal, "key.rotate", id, { overlap: `${overlapSeconds}s` });
    const made = await stored(this.#options.keys.rotate(id, overlapSeconds * 1000, principal.id));
    await this.#follow();
    return made;
  }

  /** @throws Fault key_not_found | forbidden | invalid_request | policy_unavailable */
  async change({ principal }: Grant<"keys:write">, change: KeyChange, id: string): Promise<KeyRecord> {
    await this.#ownable(principal, id, change === "enable" ? excessOf : reachExcess);
    await this.#record(principal, `key.${change}`, id);
    const changed = await stored(this.#options.keys[change](id));
    if (!(await this.#follow()))
      throw new Fault("policy_unavailable", "The change is made, but not in force on this server yet: it follows.", {
        retryAfterMs: 1000,
      });
    return changed;
  }

  /** @throws Fault key_not_found */
  async #visible(principal: Principal, id: string, param = "id"): Promise<KeyRecord> {
    const record = await stored(this.#options.keys.get(id));
    if (record === undefined || !administers(principal, record.tenant))
      throw new Fault("key_not_found", "There is no key of this id.", { param });
    return record;
  }

  /** A key that the caller sees, could have made, and that can still change. @throws Fault key_not_found | forbidden | invalid_request */
  async #ownable(principal: Principal, id: string, judge: typeof excessOf): Promise<void> {
    const record = await this.#visible(principal, id);
    this.#mayGive(principal, record, judge);
    if (record.deletedAt !== undefined) throw invalid("id", "The key is deleted.");
  }

  /** @throws Fault forbidden */
  #mayGive(principal: Principal, rights: KeyRights, judge = excessOf): void {
    const excess = judge(principal, rights, this.#options.caps);
    if (excess !== undefined) throw forbidden(principal, excess);
  }

  #record(principal: Principal, kind: EventKind, subject: string | undefined, details?: object): Promise<void> {
    return recorded(this.#options.record(kind, actorOf(principal), subject, details));
  }

  /** @returns false: the store was silent just now, and the next look will see the change */
  #follow(): Promise<boolean> {
    return this.#options.refresh().then(
      () => true,
      () => false,
    );
  }
}

function forbidden({ id }: Principal, why: string): Fault {
  return new Fault("forbidden", `This key may not do that: ${why}.`, { detail: `${id}: ${why}` });
}
