/**
 * Keeps a pool's members to what a name leads to: looked up again when it may have changed, members added and drained.
 *
 * Invariants: an upstream that is gone from the name gets nothing new and ends what it has; a name that cannot be looked
 * up changes nothing, however long; labels are slots of the operator's name for it, so that metrics do not grow with
 * addresses. Callers: app, one a name.
 */
import type { Log } from "#base/log.ts";
import type { UpstreamLink, UpstreamPool } from "./pool.ts";

export interface FoundServer {
  /** `address:port`. */
  readonly key: string;
  readonly weight: number;
}

export interface Found<S extends FoundServer> {
  readonly servers: readonly S[];
  readonly ttlMs: number;
}

export interface MembershipOptions<S extends FoundServer> {
  readonly pool: UpstreamPool;
  /** The operator's. */
  readonly label: string;
  readonly weight: number;
  readonly find: () => Promise<Found<S>>;
  readonly open: (server: S) => UpstreamLink;
  readonly log: Log;
}

/** Milliseconds. */
const SOONEST = 1000;
const LATEST = 300_000;
const AFTER_FAILURE = 5000;

export class Membership<S extends FoundServer> {
  readonly #options: MembershipOptions<S>;
  /** key → id and slot. */
  readonly #members = new Map<string, { readonly id: number; readonly slot: number; readonly weight: number }>();
  /** Slots of those that still end what they have, too. */
  readonly #slots = new Set<number>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: MembershipOptions<S>) {
    this.#options = options;
  }

  /** Resolves after the first look-up, whatever came of it. */
  async start(): Promise<void> {
    const wait = await this.refresh();
    if (this.#stopped) return;
    this.#timer = setTimeout(() => void this.start(), wait);
    this.#timer.unref();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  get size(): number {
    return this.#members.size;
  }

  /** @returns after how many milliseconds it should be looked up again */
  async refresh(): Promise<number> {
    const { find, label, log } = this.#options;
    try {
      const { servers, ttlMs } = await find();
      if (!this.#stopped) this.#take(servers);
      return Math.min(LATEST, Math.max(SOONEST, ttlMs));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log("warn", "a name of upstreams cannot be looked up; they stay as they are", { upstream: label, reason });
      return AFTER_FAILURE;
    }
  }

  #take(servers: readonly S[]): void {
    const { pool, open, weight, label, log } = this.#options;
    const wanted = new Map(servers.map((server) => [server.key, server]));
    const slowly = this.#members.size > 0;
    for (const [key, { id, slot, weight: before }] of this.#members) {
      if (wanted.get(key)?.weight === before) continue;
      this.#members.delete(key);
      log("info", "an upstream leaves", { upstream: `${label}-${slot}` });
      void pool.remove(id).finally(() => this.#slots.delete(slot));
    }
    for (const [key, server] of wanted) {
      if (this.#members.has(key)) continue;
      const slot = this.#freeSlot();
      const member = { label: `${label}-${slot}`, link: open(server) };
      this.#members.set(key, { id: pool.add(member, weight * server.weight, slowly), slot, weight: server.weight });
      log("info", "an upstream joins", { upstream: member.label });
    }
  }

  #freeSlot(): number {
    let slot = 0;
    while (this.#slots.has(slot)) slot++;
    this.#slots.add(slot);
    return slot;
  }
}
