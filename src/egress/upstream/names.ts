/**
 * The servers behind a name that an operator gave: its addresses, or its SRV records and theirs.
 *
 * Invariants: bounded in names, addresses and time; addresses that no upstream may have are left out; no server at all is
 * an error, never an empty list, so that a name server's mishap does not empty a pool. Callers: app, for
 * serving/upstreams/membership.ts.
 */
import { lookup, Resolver } from "node:dns/promises";
import { addressClass } from "#egress/addresses.ts";
import type { UpstreamPlace } from "./place.ts";
import { mayDial } from "./reach.ts";

export interface NamedServer {
  /** `address:port` */
  readonly key: string;
  readonly address: string;
  /** For Host, and the name of its certificate. */
  readonly origin: string;
  /** Of an SRV record; 1 for an address. */
  readonly weight: number;
}

export interface NamedServers {
  readonly servers: readonly NamedServer[];
  readonly ttlMs: number;
}

export interface NameOptions {
  /** Where the records say nothing about it. */
  readonly intervalMs: number;
  readonly plainAnywhere: boolean;
  /** `address:port` of name servers in place of the system's. For tests. */
  readonly nameServers?: readonly string[];
}

/** Of a pool's name. */
const MAX_SERVERS = 64;
const MAX_TARGETS = 32;
const MAX_SRV_WEIGHT = 100;

type Named = Extract<UpstreamPlace, { kind: "addresses" | "srv" }>;

interface Target {
  readonly name: string;
  readonly port: number;
  readonly weight: number;
}

/** @throws Error for the operator's log */
export async function namedServers(place: Named, options: NameOptions): Promise<NamedServers> {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  if (options.nameServers !== undefined) resolver.setServers(options.nameServers);
  const targets = place.kind === "srv" ? await srvTargets(resolver, place.name) : [{ ...place, weight: 1 }];
  const found = new Map<string, NamedServer>();
  let ttlMs = options.intervalMs;
  for (const { name, port, weight } of targets) {
    const { addresses, ttl } = await addressesOf(resolver, name, options);
    ttlMs = Math.min(ttlMs, ttl * 1000);
    for (const address of addresses.filter((each) =>
      mayDial(addressClass(each), { ...options, secure: place.secure }),
    )) {
      const key = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
      const origin = `${place.secure ? "https" : "http"}://${name.replace(/\.$/, "")}:${port}`;
      found.set(key, { key, address, origin, weight });
    }
  }
  if (found.size === 0) throw new Error("the name leads to no address that may be used");
  if (found.size > MAX_SERVERS) throw new Error(`the name leads to more than ${MAX_SERVERS} addresses`);
  return { servers: [...found.values()], ttlMs };
}

/** Those of the first priority. A weight of 0 is the least there is. */
async function srvTargets(resolver: Resolver, name: string): Promise<readonly Target[]> {
  const records = await resolver.resolveSrv(name);
  if (records.length > MAX_TARGETS) throw new Error(`the name has more than ${MAX_TARGETS} SRV records`);
  const first = Math.min(...records.map(({ priority }) => priority));
  const best = records.filter(({ priority }) => priority === first);
  const heaviest = Math.max(1, ...best.map(({ weight }) => weight));
  return best.map(({ name: target, port, weight }) => ({
    name: target,
    port,
    // In proportion, between 0.01 and 1, so that any scale will do.
    weight: Math.max(1, Math.round((weight / heaviest) * MAX_SRV_WEIGHT)) / MAX_SRV_WEIGHT,
  }));
}

/** From the name servers; names that only the system knows (hosts file, search domains) from there. */
async function addressesOf(
  resolver: Resolver,
  name: string,
  { intervalMs, nameServers }: NameOptions,
): Promise<{ readonly addresses: readonly string[]; readonly ttl: number }> {
  const [v4, v6] = await Promise.allSettled([
    resolver.resolve4(name, { ttl: true }),
    resolver.resolve6(name, { ttl: true }),
  ]);
  const records = [v4, v6].flatMap((each) => (each.status === "fulfilled" ? each.value : []));
  if (records.length > 0)
    return { addresses: records.map(({ address }) => address), ttl: Math.min(...records.map(({ ttl }) => ttl)) };
  if (nameServers !== undefined) throw new Error("the name has no address");
  const known = await lookup(name, { all: true });
  return { addresses: known.map(({ address }) => address), ttl: intervalMs / 1000 };
}
