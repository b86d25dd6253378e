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
import type { Channel } from "#core/channel.ts";
import { Fault } from "#core/fault.ts";
import type { FairShare } from "#core/generate.ts";
import type { RelaySource, UpstreamAnswer, UpstreamRequest } from "#core/relay.ts";
import type { UpstreamChannelOptions } from "#egress/upstream/channel.ts";
import type { SendOptions, UpstreamReply, UpstreamTimeouts } from "#egress/upstream/exchange.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { Prefix, PrefixNamer } from "./affinity.ts";
import { Balancer, type BalancerOptions, type MemberState, type Ticket, type Verdict, type Wish } from "./balancer.ts";
import type { PoolObserver } from "./metrics.ts";
import { RetryBudget } from "./retry-budget.ts";
import { judgeStatus, mayHaveBegun, mayRetry, type Outcome, outcomeOf, verdictOf } from "./rules.ts";
import { WaitingLine } from "./waiting-line.ts";

/** The way to one upstream: egress' client, or a test's. */
export interface UpstreamLink {
  send(request: UpstreamRequest, options: SendOptions): Promise<UpstreamReply>;
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

export interface PoolCall {
  /** What it will cost at most, or about: prompt and answer. */
  readonly tokens: number;
  readonly prefix?: Prefix;
  /** Whose share of the upstreams it draws on while all are full; those without one share a share. */
  readonly share?: FairShare;
  /** As the upstreams name it. */
  readonly adapter?: string;
  /** Whether it may be asked twice: yes for inference, no for operations. */
  readonly idempotent: boolean;
  /** Aborted with a Fault: that is what the caller gets. */
  readonly signal?: AbortSignal;
  /** Bytes of the answer at most. */
  readonly maxBytes?: number;
}

export interface PooledAnswer extends UpstreamAnswer {
  /** The operator's name for it. */
  readonly upstream: string;
  /** Tokens that it costs as is known now; while the answer runs, what is outstanding is set right by it. */
  settled(tokens: number): void;
}

/** A place at an upstream, for as long as its channel is open. */
export interface PooledChannel {
  readonly channel: Channel;
  /** The operator's name for it. */
  readonly upstream: string;
  /** It is over; once. @param fault what ended it, where that was the upstream */
  end(fault?: Fault): void;
}

export interface PoolMember {
  readonly label: string;
  readonly link: UpstreamLink;
}

export interface PoolMemberState extends MemberState {
  readonly label: string;
}

const SMALL_BODY = 64 * 1024;
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

  /**
   * Resolves with the head; the source is piped or cancelled by the caller.
   * @throws Fault: upstream_* | overloaded: all full for too long | cancelled | what the signal was aborted with
   */
  async send(request: UpstreamRequest, call: PoolCall): Promise<PooledAnswer> {
    if (this.#closed) throw new Fault("draining", "The server is shutting down.");
    this.#budget.request();
    const blocks = this.#blocks(call);
    const excluded = new Set<number>();
    const { tokens, adapter } = call;
    const wish: Wish = { tokens, blocks, excluded, ...(adapter === undefined ? {} : { adapter }) };
    let begun = 0;
    for (let attempt = 1; ; attempt++) {
      const ticket = this.#ticket(wish) ?? (await this.#line.wait(wish, call.share ?? NOBODY, call.signal));
      const fault = await this.#attempt(ticket, request, call);
      if (!(fault instanceof Fault)) return fault;
      if (mayHaveBegun(fault)) begun++;
      if (!mayRetry(fault, { attempt, begun, idempotent: call.idempotent })) throw fault;
      // One upstream alone is asked again only where it was the connection that failed.
      if (this.#balancer.size > 1) excluded.add(ticket.id);
      else if (!(fault instanceof UpstreamFault && fault.reason === "reset")) throw fault;
      if (!this.#somebodyElse(wish) || !this.#budget.take()) throw fault;
      this.#options.observer?.retried(this.#label(ticket.id));
    }
  }

  /**
   * A channel to one of them, which counts as a call there until it ends. Nothing has been said on it, so that one that
   * cannot be opened may be another's. @throws Fault, as send; not_implemented: the upstream has no such channel
   */
  async channel(options: UpstreamChannelOptions, call: PoolCall): Promise<PooledChannel> {
    if (this.#closed) throw new Fault("draining", "The server is shutting down.");
    this.#budget.request();
    const excluded = new Set<number>();
    const { tokens, adapter } = call;
    const wish: Wish = { tokens, blocks: [], excluded, ...(adapter === undefined ? {} : { adapter }) };
    for (let attempt = 1; ; attempt++) {
      const ticket = this.#ticket(wish) ?? (await this.#line.wait(wish, call.share ?? NOBODY, call.signal));
      const found = await this.#open(ticket, options);
      if (!(found instanceof Fault)) return found;
      if (!mayRetry(found, { attempt, begun: 0, idempotent: true })) throw found;
      excluded.add(ticket.id);
      if (!this.#somebodyElse(wish) || !this.#budget.take()) throw found;
      this.#options.observer?.retried(this.#label(ticket.id));
    }
  }

  async #open(ticket: Ticket, options: UpstreamChannelOptions): Promise<PooledChannel | Fault> {
    const label = this.#label(ticket.id);
    const startedAt = this.#now();
    let over = false;
    const end = (fault?: Fault): void => {
      if (over) return;
      over = true;
      const outcome = fault === undefined ? "whole" : fault instanceof UpstreamFault ? "failed" : "cancelled";
      this.#options.observer?.ended(label, outcomeOf(outcome, fault));
      this.#give(ticket, verdictOf(outcome, fault));
    };
    try {
      const link = this.#members.get(ticket.id)?.link;
      if (link === undefined) throw new UpstreamFault("connect", { sent: false, detail: "it left" });
      const channel = await link.channel(options);
      this.#sawHead(ticket, label, startedAt);
      return { channel, upstream: label, end };
    } catch (error) {
      const fault = error instanceof Fault ? error : new Fault("internal", "Internal server error.", { cause: error });
      end(fault);
      return fault;
    }
  }

  /** Where there is a choice: a long prompt's hashes cost as much as passing it on. */
  #blocks({ prefix }: PoolCall): Wish["blocks"] {
    if (prefix === undefined || this.#balancer.size < 2) return [];
    return this.#options.namer?.blocks(prefix) ?? [];
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

  #somebodyElse({ excluded, adapter }: Wish): boolean {
    return this.#balancer
      .states()
      .some(
        ({ id, state, adapters }) =>
          state === "ready" && !excluded.has(id) && (adapter === undefined || adapters.includes(adapter)),
      );
  }

  /** @returns the fault instead of throwing it: a retry is no exception */
  async #attempt(ticket: Ticket, request: UpstreamRequest, call: PoolCall): Promise<PooledAnswer | Fault> {
    const member = this.#members.get(ticket.id);
    if (member === undefined) {
      this.#give(ticket, "neutral");
      return new UpstreamFault("connect", { sent: false, detail: "it left" });
    }
    const { label, link } = member;
    let settled: Outcome | undefined;
    const startedAt = this.#now();
    const ended: SendOptions["ended"] = (end, fault) => {
      const outcome = end === "whole" && settled !== undefined ? settled : outcomeOf(end, fault);
      this.#options.observer?.ended(label, outcome);
      this.#give(ticket, verdictOf(end, fault));
    };
    try {
      const reply = await link.send(request, this.#sendOptions(call, ended));
      const judged = judgeStatus(reply);
      settled = judged?.outcome ?? (reply.status < 400 ? "ok" : "rejected");
      if (judged !== undefined) {
        this.#give(ticket, judged.verdict);
        discard(reply.source);
        return judged.fault;
      }
      this.#sawHead(ticket, label, startedAt);
      return this.#answer(ticket, reply, label);
    } catch (error) {
      // Of an exchange that began, `ended` was told already.
      this.#give(ticket, "neutral");
      if (error instanceof Fault) return error;
      throw error;
    }
  }

  #give(ticket: Ticket, verdict: Verdict): void {
    this.#balancer.give(ticket, verdict);
    this.#line.look();
  }

  #sendOptions({ signal, maxBytes }: PoolCall, ended: NonNullable<SendOptions["ended"]>): SendOptions {
    return {
      timeouts: this.#options.timeouts,
      ended,
      ...(signal === undefined ? {} : { signal }),
      ...(maxBytes === undefined ? {} : { maxBytes }),
    };
  }

  #sawHead(ticket: Ticket, label: string, startedAt: number): void {
    const seconds = (this.#now() - startedAt) / 1000;
    this.#balancer.sawFirstByte(ticket, seconds);
    this.#options.observer?.firstByte(label, seconds);
  }

  #answer(ticket: Ticket, { status, headers, source }: UpstreamReply, upstream: string): PooledAnswer {
    const settled = (tokens: number): void => this.#balancer.correct(ticket, Math.max(0, Math.round(tokens)));
    return { status, headers, source, upstream, settled };
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

/** Reads a short body to its end, so that the connection lives on; gives up a long one. */
function discard(source: RelaySource): void {
  let bytes = 0;
  const write = (chunk: Uint8Array): boolean => {
    bytes += chunk.byteLength;
    if (bytes > SMALL_BODY) source.cancel();
    return true;
  };
  source.pipe({ write, end: () => {}, fail: () => {} });
}
