/**
 * What a socket says about who is at its other end. Callers: the pipeline, once a request.
 */
import type { Socket } from "node:net";
import { NO_PEER, type Peer } from "#policy/peer.ts";
import { certificateOf } from "./_certificate.ts";

export function peerOf(socket: Socket | undefined): Peer {
  if (socket === undefined) return NO_PEER;
  const { remoteAddress: address } = socket;
  const certificate = certificateOf(socket);
  if (certificate !== undefined) return { address, certificate };
  return address === undefined ? NO_PEER : { address };
}
