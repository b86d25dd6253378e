/**
 * undici's connections, with a look at where they go (rules 4 to 6 of docs/egress.md): for hosts that the operator has
 * listed, whose names are looked up by the system. Used by fetch.ts.
 *
 * Invariants: an address is judged before anything is sent to it, and it is the one that was judged that is dialed;
 * certificates are verified whatever the environment says.
 */
import { lookup as systemLookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";
import { buildConnector } from "undici";
import { type AddressJudge, addressJudge } from "./_addresses-of.ts";
import type { AddressClass } from "./addresses.ts";

export interface ConnectOptions {
  readonly allowed: readonly AddressClass[];
  /** CIDR blocks. */
  readonly refusedNetworks: readonly string[];
  readonly connectMs: number;
  /** In place of the system's; tests have their own. */
  readonly lookup?: typeof systemLookup;
}

export function judgedConnector(options: ConnectOptions): buildConnector.connector {
  const judge = addressJudge(options.allowed, options.refusedNetworks);
  const connect = buildConnector({
    timeout: options.connectMs,
    allowH2: false,
    rejectUnauthorized: true,
    lookup: judgedLookup(judge, options.lookup ?? systemLookup),
  });
  return (place, done) => {
    const host = place.hostname.replace(/^\[|\]$/g, "");
    // An address is looked up by nobody.
    const problem = isIP(host) === 0 ? undefined : judge(host, host);
    if (problem !== undefined) return done(problem, null);
    return connect(place, (...[error, socket]) => {
      if (error !== null) return done(error, null);
      const misled = judge(host, socket.remoteAddress ?? "");
      if (misled === undefined) return done(null, socket);
      socket.destroy();
      return done(misled, null);
    });
  };
}

/** One bad address refuses all. */
function judgedLookup(judge: AddressJudge, lookup: typeof systemLookup): LookupFunction {
  return (hostname, options, done) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      const [first] = addresses ?? [];
      const problem =
        error ?? addresses.map(({ address }) => judge(hostname, address)).find((each) => each !== undefined);
      if (problem !== undefined && problem !== null) done(problem, "");
      else if (options.all === true) done(null, addresses);
      else done(null, first?.address ?? "", first?.family);
    });
  };
}
