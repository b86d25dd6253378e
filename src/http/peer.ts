/**
 * What a socket says about who is at its other end. Callers: the pipeline, once a request.
 */
import type { Socket } from "node:net";
import { NO_PEER, type Peer } from "#policy/peer.ts";

export function peerOf(socket: Socket | undefined): Peer {
  const address = socket?.remoteAddress;
  return address === undefined ? NO_PEER : { address };
}
