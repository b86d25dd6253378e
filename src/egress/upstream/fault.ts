/**
 * Why an upstream gave no answer, or not all of one: a Fault for the client, with what a retry has to know.
 *
 * Invariant: the message names no address; where it went and what went wrong is in `detail`, for the log.
 * Callers: client.ts makes them; serving/upstreams judges them.
 */
import { Fault, type FaultKind } from "#core/fault.ts";

/**
 * `connect`: no connection, so nothing was asked; `reset`: it ended before the answer did; `protocol`: what came is no
 * answer; `timeout`; `too_large`; `redirect`: it sent us elsewhere; `denied`: it does not take our key; `busy`: it says
 * that it has too much to do; `down`: it, or a proxy before it, says that it cannot; `asleep`: an operator has put them to sleep; `broken`: it says that it failed.
 */
export type UpstreamReason =
  | "connect"
  | "reset"
  | "protocol"
  | "timeout"
  | "too_large"
  | "redirect"
  | "denied"
  | "busy"
  | "down"
  | "asleep"
  | "broken"
  | "cancelled";

const KINDS: Readonly<Record<UpstreamReason, readonly [FaultKind, message: string]>> = {
  connect: ["upstream_unavailable", "The model's server cannot be reached."],
  reset: ["upstream_failed", "The model's server broke off."],
  protocol: ["upstream_failed", "The model's server gave no answer that can be read."],
  timeout: ["upstream_timeout", "The model's server took too long."],
  too_large: ["upstream_failed", "The model's server gave an answer larger than any should be."],
  redirect: ["upstream_failed", "The model's server gave no answer that can be used."],
  denied: ["upstream_failed", "The model's server did not take the call."],
  busy: ["overloaded", "The model's servers have too much to do."],
  down: ["upstream_unavailable", "The model's server takes no calls now."],
  asleep: ["upstream_unavailable", "The model's servers are asleep: an operator wakes them (/wake_up)."],
  broken: ["upstream_failed", "The model's server failed."],
  cancelled: ["cancelled", "The call was given up."],
};

export interface UpstreamFaultOptions {
  /** Bytes of the request may have reached the upstream: it may have acted. */
  readonly sent: boolean;
  readonly detail?: string;
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

export class UpstreamFault extends Fault {
  readonly reason: UpstreamReason;
  readonly sent: boolean;

  constructor(reason: UpstreamReason, { sent, ...options }: UpstreamFaultOptions) {
    const [kind, message] = KINDS[reason];
    super(kind, message, options);
    this.name = "UpstreamFault";
    this.reason = reason;
    this.sent = sent;
  }
}

/** Of what a connection failed with, or the making of one. */
export function upstreamFault(error: unknown, sent: boolean): UpstreamFault {
  if (error instanceof UpstreamFault) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const detail = code === "" ? String(error instanceof Error ? error.message : error).slice(0, 200) : code;
  return new UpstreamFault(sent ? "reset" : "connect", { sent, detail, cause: error });
}
