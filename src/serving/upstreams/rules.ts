/**
 * What an upstream's answer or failure means: for the client, for its standing, and for another try. Pure.
 *
 * The rules stand in words in pool.ts and docs/upstreams.md. Callers: pool.ts.
 */
import type { Fault } from "#core/fault.ts";
import type { UpstreamOutcome, UpstreamReply } from "#egress/upstream/exchange.ts";
import { UpstreamFault, type UpstreamReason } from "#egress/upstream/fault.ts";
import type { Verdict } from "./balancer.ts";

/** How a try ended, for the metrics. */
export const OUTCOMES = ["ok", "rejected", "refused", "failed", "unreachable", "timeout", "cancelled"] as const;
export type Outcome = (typeof OUTCOMES)[number];

const MAX_TRIES = 3;
const MAX_BEGUN = 1;

/** status → why it is a failure of the upstream's. What is not here goes on to the client. */
const STATUS: Readonly<Record<number, UpstreamReason>> = {
  401: "denied",
  403: "denied",
  407: "denied",
  408: "timeout",
  429: "busy",
  503: "down",
  504: "timeout",
};

export interface JudgedStatus {
  readonly fault: UpstreamFault;
  readonly verdict: Verdict;
  readonly outcome: Outcome;
}

/** @returns undefined: it goes on to the client */
export function judgeStatus({
  status,
  retryAfterMs,
}: Pick<UpstreamReply, "status" | "retryAfterMs">): JudgedStatus | undefined {
  const reason = STATUS[status] ?? (status >= 500 && status !== 501 ? "broken" : undefined);
  if (reason === undefined) return undefined;
  const fault = new UpstreamFault(reason, {
    sent: true,
    detail: `status ${status}`,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
  return {
    fault,
    verdict: reason === "busy" ? "neutral" : "failed",
    outcome: reason === "busy" || reason === "down" ? "refused" : reason === "timeout" ? "timeout" : "failed",
  };
}

/** Whether the upstream may have begun to act on it. */
export function mayHaveBegun(fault: Fault): boolean {
  return fault instanceof UpstreamFault && fault.sent && !["busy", "down", "denied"].includes(fault.reason);
}

/** Of those that say nothing about the next one's answer. */
const FINAL: ReadonlySet<UpstreamReason> = new Set(["cancelled", "too_large"]);

export interface Tries {
  /** So far. */
  readonly attempt: number;
  /** Of them, how many an upstream may have begun. */
  readonly begun: number;
  readonly idempotent: boolean;
}

export function mayRetry(fault: Fault, { attempt, begun, idempotent }: Tries): boolean {
  if (!(fault instanceof UpstreamFault) || FINAL.has(fault.reason)) return false;
  if (attempt >= MAX_TRIES) return false;
  if (fault.sent && !idempotent) return false;
  return begun <= MAX_BEGUN;
}

/** Of an exchange that ended by itself. */
export function verdictOf(end: UpstreamOutcome, fault: Fault | undefined): Verdict {
  if (end === "whole") return "ok";
  if (end === "cancelled" || !(fault instanceof UpstreamFault)) return "neutral";
  return fault.reason === "too_large" ? "neutral" : "failed";
}

export function outcomeOf(end: UpstreamOutcome, fault: Fault | undefined): Outcome {
  if (end !== "failed") return end === "whole" ? "ok" : "cancelled";
  if (!(fault instanceof UpstreamFault)) return "cancelled";
  if (fault.reason === "connect") return "unreachable";
  return fault.reason === "timeout" ? "timeout" : "failed";
}
