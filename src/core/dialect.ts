/**
 * How a protocol prints a failure and frames a stream. Values live in wire/; http receives them with the route.
 */
import type { Fault } from "./fault.ts";

export interface FaultReply {
  readonly status: number;
  readonly body: unknown;
}

export interface Dialect {
  readonly name: string;
  /** Where its clients look for the request's id; absent: in x-request-id alone. */
  readonly requestIdHeader?: string;
  /** Before the first byte of an answer. */
  fault(fault: Fault, requestId: string): FaultReply;
  /** After the first event of a stream: complete SSE frames, the protocol's end included. */
  streamFault(fault: Fault, requestId: string): string;
}
