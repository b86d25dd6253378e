/**
 * The upstreams of one model: a request goes to one of them, waits while all are full, and is tried again where it may be.
 *
 * What an upstream's answer means (docs/upstreams.md):
 * - 2xx and 4xx go on to the client, except those below; 501 too.
 * - 401, 403 and 407 mean our key, not the client's: the upstream failed.
 * - 429 and 503 say that it did not begin: tried elsewhere. 503 counts as its failure, 429 does not.
 * - 408, 500, 502, 504 and other 5xx, a broken connection, nonsense: it failed, and may have begun.
 * A request is tried again only before its head reached the caller, only within the budget, three times in all. One that
 * an upstream may have begun is tried again once, so that a request that ends engines does not end them all, and never
 * where it is not idempotent.
 * Invariants (Wall: T122): one outcome per send; in-flight and outstanding counts return to zero whatever happens.
 * Callers: app builds it; the relay's glue sends.
 */
import type { Channel } from "#base/channel.ts";
import { Fault } from "#core/fault.ts";
import type { FairShare } from "#core/generate.ts";
import type { RelayHead, RelaySource, UpstreamRequest } from "#core/relay.ts";
import type { UpstreamChannelOptions } from "#egress/upstream/channel.ts";
import type { Asker, SendOptions, UpstreamReply, UpstreamTimeouts } from "#egress/upstream/exchange.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import { openChannel, type PooledChannel } from "./_channel-try.ts";
import { type Desk, Try } from "./_try.ts";
import type { Prefix, PrefixNamer } from "./affinity.ts";
import { Balancer, type BalancerOptions, type MemberState, type Ticket, type Wish } from "./balancer.ts";
import type { PoolObserver } from "./metrics.ts";
import { RetryBudget } from "./retry-budget.ts";
import { WaitingLine } from "./waiting-line.ts";

/** The way to one upstream: egress' client, or a test's. */
export interface UpstreamLink {
  send(request: UpstreamRequest, options: SendOptions): Promise<UpstreamReply>;
  /** @throws Error: whoever made the request is wrong */
  ask(request: UpstreamRequest, asker: Asker): void;
  channel(options: UpstreamChannelOptions): Promise<Channel>;
  /** When what is under way has ended. */
  close(): Promise<void>;
  destroy(): Promise<void>;
}

export interface PoolOptions extends Omit<BalancerOptions, "now" | "onEjected"> {
  readonly timeouts: UpstreamTimeouts;
  readonly retryShare: number;
  readonly retriesPerSecond: number;
  /** Requests that wait while all upstreams are full, and for how long. */
  readonly maxWaiting: number;
  readonly maxWaitMs: number;
  readonly namer?: PrefixNamer;
  readonly observer?: PoolObserver;
  /** Milliseconds. */
  readonly now?: () => number;
}

/** Looked at when it is needed, and then once or twice. */
export interface PoolCall {
  /** What it will cost at most, or about: prompt and answer. */
  readonly tokens: number;
  readonly prefix?: Prefix;
  /** Whose share of the upstreams it draws on while all are full; those without one share a share. */
  readonly share?: FairShare;
  /** As the upstreams name it. */
  readonly adapter?: string | undefined;
  /** Whether it may be asked twice: yes for inference, no for operations. */
  readonly idempotent: boolean;
  /** Aborted with a Fault: that is what the caller gets. */
  readonly signal?: AbortSignal | undefined;
  /** In its place, and cheaper: one listener, the last; called at once where the call is over. */
  onAbort?(run: (reason: Fault) => void): void;
  /** Bytes of the answer at most. */
  readonly maxBytes?: number | undefined;
  /** Once, where it was asked once: it is being answered, and nothing is read of its request any more, nor written from it. */
  spent?(): void;
}

/** The try that was answered. */
export interface Answering {
  /** The operator's name for it. */
  readonly upstream: string;
  /** Tokens that it costs as is known now; while the answer runs, what is outstanding is set right by it. */
  settled(tokens: number): void;
}

/** Who has asked a pool is told one of these, once. Throws nothing. */
export interface Receiver {
  /** The source is piped or cancelled. */
  answered(head: AnswerHead, source: RelaySource, by: Answering): void;
  /** Fault: upstream_* | overloaded: all full for too long | draining | cancelled | what the call was aborted with. */
  failed(error: unknown): void;
}

export interface AnswerHead extends RelayHead {
  /** Of its body; undefined: it does not say. */
  readonly length: number | undefined;
}

export interface PoolMember {
  readonly label: string;
  readonly link: UpstreamLink;
}

export interface PoolMemberState extends MemberState {
  readonly label: string;
}

const NO_BLOCKS: Wish["blocks"] = [];
const NOBODY: FairShare = { key: "", weight: 1 };

export class UpstreamPool {
  readonly #options: PoolOptions;
  readonly #balancer: Balancer;
  readonly #budget: RetryBudget;
  readonly #members = new Map<number, PoolMember>();
  /** Labels of those that end what they have. */
  readonly #left = new Map<number, string>();
  readonly #line: WaitingLine;
  readonly #now: () => number;
  readonly #desk: Desk;
  #closed = false;
  #onAdapters: (() => void) | undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#balancer = new Balancer({
      ...options,
      now: this.#now,
      onEjected: (id) => options.observer?.ejected(this.#label(id)),
    });
    this.#budget = new RetryBudget({
      share: options.retryShare,
      perSecond: options.retriesPerSecond,
      now: this.#now,
    });
    const take = (wish: Wish) => this.#balancer.take(wish);
    this.#line = new WaitingLine(options.maxWaiting, options.maxWaitMs, take, (wish) => this.#nobody(wish));
    this.#desk = this.#makeDesk();
  }

  /** What tries see of it. */
  #makeDesk(): Desk {
    const { timeouts, observer } = this.#options;
    return {
      timeouts,
      now: this.#now,
      take: (wish) => this.#ticket(wish),
      wait: (wish, call) => this.#line.wait(wish, call.share ?? NOBODY, call.signal, (run) => call.onAbort?.(run)),
      member: (id) => this.#members.get(id),
      give: (ticket, verdict) => {
        this.#balancer.give(ticket, verdict);
        this.#line.look();
      },
      correct: (ticket, tokens) => this.#balancer.correct(ticket, tokens),
      sawHead: (ticket, label, seconds) => {
        this.#balancer.sawFirstByte(ticket, seconds);
        observer?.firstByte(label, seconds);
      },
      ended: (label, outcome) => observer?.ended(label, outcome),
      again: (ticket, wish, fault) => this.#again(ticket, wish, fault),
    };
  }

  /** @param slowly the pool works already, and this one gets its share little by little */
  add(member: PoolMember, weight = 1, slowly = false): number {
    const id = this.#balancer.add(weight, slowly);
    this.#members.set(id, member);
    this.#line.look();
    return id;
  }

  /** No more for it; resolves when what it has is over. */
  async remove(id: number): Promise<void> {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.#balancer.leave(id);
    this.#members.delete(id);
    this.#left.set(id, member.label);
    this.#adaptersChanged();
    await member.link.close();
    this.#left.delete(id);
  }

  setHealthy(id: number, healthy: boolean): void {
    this.#balancer.setHealthy(id, healthy);
    this.#line.look();
  }

  setAsleep(id: number, asleep: boolean): void {
    this.#balancer.setAsleep(id, asleep);
    this.#line.look();
  }

  /** @param changes of `adapterChanges`, when it was asked */
  setAdapters(id: number, adapters: Iterable<string>, changes?: number): void {
    this.#balancer.setAdapters(id, adapters, changes);
    this.#adaptersChanged();
  }

  adapterChanges(id: number): number {
    return this.#balancer.adapterChanges(id);
  }

  /** It has just loaded or unloaded one. */
  changeAdapter(id: number, name: string, has: boolean): void {
    this.#balancer.changeAdapter(id, name, has);
    this.#adaptersChanged();
  }

  /** What any of its members has, whether or not it takes calls now. */
  adapters(): ReadonlySet<string> {
    return new Set(this.#balancer.states().flatMap(({ state, adapters }) => (state === "leaving" ? [] : adapters)));
  }

  /** @param run after each change of what `adapters` says, and some that are none */
  onAdapters(run: () => void): void {
    this.#onAdapters = run;
  }

  #adaptersChanged(): void {
    this.#line.look();
    this.#onAdapters?.();
  }

  members(): ReadonlyMap<number, PoolMember> {
    return this.#members;
  }

  states(): readonly PoolMemberState[] {
    return this.#balancer.states().map((state) => ({ ...state, label: this.#label(state.id) }));
  }

  get waiting(): number {
    return this.#line.length;
  }

  /** Whether anybody would take a call now, or soon. */
  available(): boolean {
    return this.#balancer.states().some(({ state }) => state === "ready");
  }

  /** Tries it, and tells the receiver what came of it. */
  ask(request: UpstreamRequest, call: PoolCall, receiver: Receiver): void {
    if (this.#closed) {
      receiver.failed(new Fault("draining", "The server is shutting down."));
      return;
    }
    this.#budget.request();
    new Try(this.#desk, request, call, receiver, this.#blocks(call)).start();
  }

  /** @throws Fault, as send; not_implemented: the upstream has no such channel */
  async channel(options: UpstreamChannelOptions, call: PoolCall): Promise<PooledChannel> {
    if (this.#closed) throw new Fault("draining", "The server is shutting down.");
    this.#budget.request();
    return openChannel(this.#desk, options, call);
  }

  /** Where there is a choice: a long prompt's hashes cost as much as passing it on. */
  #blocks(call: PoolCall): Wish["blocks"] {
    const { namer } = this.#options;
    if (namer === undefined || this.#balancer.size < 2) return NO_BLOCKS;
    const { prefix } = call;
    return prefix === undefined ? NO_BLOCKS : namer.blocks(prefix);
  }

  #ticket(wish: Wish): Ticket | undefined {
    if (this.#line.length > 0) return undefined;
    const taken = this.#balancer.take(wish);
    if (taken === "none") throw this.#nobody(wish);
    return taken === "full" ? undefined : taken;
  }

  #nobody({ adapter }: Wish): Fault {
    const able = this.#balancer
      .states()
      .filter(({ state, adapters }) => state !== "leaving" && (adapter === undefined || adapters.includes(adapter)));
    if (able.length > 0 && able.every(({ state }) => state === "asleep"))
      return new UpstreamFault("asleep", { sent: false });
    const retryAfterMs = Math.ceil(this.#balancer.soonestBack() ?? 1000);
    return new UpstreamFault("down", { sent: false, detail: "no upstream is ready", retryAfterMs });
  }

  #again(ticket: Ticket, { excluded, adapter }: Wish, fault: Fault): ReadonlySet<number> | undefined {
    // One upstream alone is asked again only where it was the connection that failed.
    const alone = this.#balancer.size <= 1;
    if (alone && !(fault instanceof UpstreamFault && fault.reason === "reset")) return undefined;
    const without = alone ? excluded : new Set([...excluded, ticket.id]);
    if (!this.#somebodyElse(without, adapter) || !this.#budget.take()) return undefined;
    this.#options.observer?.retried(this.#label(ticket.id));
    return without;
  }

  #somebodyElse(excluded: ReadonlySet<number>, adapter: string | undefined): boolean {
    return this.#balancer
      .states()
      .some(
        ({ id, state, adapters }) =>
          state === "ready" && !excluded.has(id) && (adapter === undefined || adapters.includes(adapter)),
      );
  }

  #label(id: number): string {
    return this.#members.get(id)?.label ?? this.#left.get(id) ?? "gone";
  }

  /** Takes nothing more, and waits for what is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#line.close();
    await Promise.all([...this.#members.values()].map(({ link }) => link.close()));
  }

  /** At once. */
  async destroy(): Promise<void> {
    this.#closed = true;
    this.#line.close();
    await Promise.all([...this.#members.values()].map(({ link }) => link.destroy()));
  }
}
