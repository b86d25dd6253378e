/**
 * What a failure says, in any dialect: bounded and well-formed.
 *
 * Invariant: never a fault's `detail`; of what is no client's fault the request id only.
 */
import type { Fault } from "#core/fault.ts";

const MESSAGE_LENGTH = 1000;

export function faultMessage({ kind, message }: Fault, requestId: string): string {
  return bound(kind === "internal" ? `${message} Request id: ${requestId}` : message, MESSAGE_LENGTH);
}

export function bound(text: string, length: number): string {
  const kept = text.length <= length ? text : `${text.slice(0, length - 1)}…`;
  return kept.toWellFormed();
}
