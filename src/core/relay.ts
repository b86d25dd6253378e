/**
 * An answer that another server gives and this one passes on: bytes that are pushed, not pulled, so that an event costs
 * a read and a write and little between.
 *
 * Contract: `pipe` is called once, or `cancel` instead of it; after `end`, `fail` or `cancel` nothing more comes. A
 * target that answers `write` with false gets nothing until it calls `resume`. What the chunks hold may be used until
 * `write` returns, and kept only as a copy, unless it is given away. Made by serving's upstreams; http writes it out.
 */
import type { Fault } from "./fault.ts";

export interface RelayTarget {
  /** The first bytes are there, and come as soon as the source has done something else: what precedes them may begin. */
  soon?(): void;
  /** @param given the memory is the target's from here on. @returns false: no more until `resume` */
  write(chunk: Uint8Array, given?: boolean): boolean;
  /** The answer is whole. */
  end(): void;
  /** It will never be: the connection to the upstream broke, stalled or made no sense. */
  fail(fault: Fault): void;
}

export interface RelaySource {
  pipe(target: RelayTarget): void;
  resume(): void;
  /** Nobody wants the rest. Idempotent. */
  cancel(): void;
}

/** Head of an answer, rebuilt: only what may pass, names in lower case. */
export interface RelayHead {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** What goes to an upstream. */
export interface UpstreamRequest {
  readonly method: string;
  /** Path and query, as declared routes spell them; never as a client did. */
  readonly target: string;
  /** Name and value in turn; rebuilt, without hop-by-hop ones, Host and length. */
  readonly headers: readonly string[];
  /** In pieces, so that a change in a long body copies nothing; empty: no body. */
  readonly body: readonly Uint8Array[];
}

export interface UpstreamAnswer extends RelayHead {
  readonly source: RelaySource;
}
