/**
 * Requests and answers as the corridor has them: node:http's, or those that were read without it. Private to http.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { PlainAnswer } from "./_plain-answer.ts";
import { PlainRequest } from "./_plain-request.ts";

export type Incoming = IncomingMessage | PlainRequest;
export type Outgoing = ServerResponse | PlainAnswer;

/** Those of routes that need more of node:http than a body's bytes. @throws Error another was let through (server.ts) */
export function nodesOwn(
  req: Incoming,
  res: Outgoing,
): { readonly req: IncomingMessage; readonly res: ServerResponse } {
  if (req instanceof PlainRequest || res instanceof PlainAnswer) throw new Error(`${req.url} is not read plainly`);
  return { req, res };
}
