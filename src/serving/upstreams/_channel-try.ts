/**
 * A channel to one of a pool's upstreams: tried as a call is (_try.ts), and counted there until it ends.
 *
 * Invariant (Wall: T122): the ticket is given back once, whatever ends the try or the channel. Private to pool.ts.
 */
import type { Channel } from "#base/channel.ts";
import { Fault } from "#core/fault.ts";
import type { UpstreamChannelOptions } from "#egress/upstream/channel.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import type { Desk } from "./_try.ts";
import type { Ticket, Wish } from "./balancer.ts";
import type { PoolCall } from "./pool.ts";
import { mayRetry, outcomeOf, verdictOf } from "./rules.ts";

/** A place at an upstream, for as long as its channel is open. */
export interface PooledChannel {
  readonly channel: Channel;
  /** The operator's name for it. */
  readonly upstream: string;
  /** It is over; once. @param fault what ended it, where that was the upstream */
  end(fault?: Fault): void;
}

const NOBODY: ReadonlySet<number> = new Set();

/** Nothing has been said on a channel that cannot be opened, so that it may be another's. @throws Fault */
export async function openChannel(desk: Desk, options: UpstreamChannelOptions, call: PoolCall): Promise<PooledChannel> {
  let excluded = NOBODY;
  for (let attempt = 1; ; attempt++) {
    const wish: Wish = { tokens: call.tokens, blocks: [], excluded, adapter: call.adapter };
    const ticket = desk.take(wish) ?? (await desk.wait(wish, call));
    const found = await open(desk, ticket, options);
    if (!(found instanceof Fault)) return found;
    const next = mayRetry(found, { attempt, begun: 0, idempotent: true }) ? desk.again(ticket, wish, found) : undefined;
    if (next === undefined) throw found;
    excluded = next;
  }
}

/** @returns the fault instead of throwing it: another try is no exception */
async function open(desk: Desk, ticket: Ticket, options: UpstreamChannelOptions): Promise<PooledChannel | Fault> {
  const member = desk.member(ticket.id);
  if (member === undefined) {
    desk.give(ticket, "neutral");
    return new UpstreamFault("connect", { sent: false, detail: "it left" });
  }
  const { label, link } = member;
  const startedAt = desk.now();
  let over = false;
  const end = (fault?: Fault): void => {
    if (over) return;
    over = true;
    const outcome = fault === undefined ? "whole" : fault instanceof UpstreamFault ? "failed" : "cancelled";
    desk.ended(label, outcomeOf(outcome, fault));
    desk.give(ticket, verdictOf(outcome, fault));
  };
  try {
    const channel = await link.channel(options);
    desk.sawHead(ticket, label, (desk.now() - startedAt) / 1000);
    return { channel, upstream: label, end };
  } catch (error) {
    const fault = error instanceof Fault ? error : new Fault("internal", "Internal server error.", { cause: error });
    end(fault);
    return fault;
  }
}
