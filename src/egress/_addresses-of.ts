/**
 * Where a name leads: asked once, and every answer judged before any is used (rule 4 of docs/egress.md).
 * Used by guarded-fetch.ts, and its judge by _judged-connect.ts.
 */
import { lookup, Resolver } from "node:dns/promises";
import { BlockList, isIPv6 } from "node:net";
import { type AddressClass, addressClass } from "./addresses.ts";
import type { GuardOptions } from "./guarded-fetch.ts";
import type { Target } from "./guarded-url.ts";
import { EgressError } from "./policy.ts";

/** More addresses than any honest name has. */
const MAX_ADDRESSES = 32;

/** Where the name leads, once none of it leads elsewhere. @throws EgressError | what stopped it */
export async function judgedAddresses(
  target: Target,
  options: GuardOptions,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const resolve = options.resolve ?? resolverOf(options);
  signal.throwIfAborted();
  const addresses = target.isAddress ? [target.hostname] : await before(signal, resolve(target.hostname, signal));
  const { host } = target.url;
  if (addresses.length === 0) throw new EgressError("network", `${host} has no address`);
  if (addresses.length > MAX_ADDRESSES) throw forbidden(`${host} has more than ${MAX_ADDRESSES} addresses`);
  const judge = addressJudge(allowedClasses(target, options), options.refusedNetworks ?? []);
  for (const address of addresses) {
    const problem = judge(host, address);
    if (problem !== undefined) throw problem;
  }
  return addresses;
}

/** Says what is wrong with an address that a host leads to. */
export type AddressJudge = (host: string, address: string) => EgressError | undefined;

/** @param refusedNetworks CIDR blocks, which the settings have checked */
export function addressJudge(allowed: readonly AddressClass[], refusedNetworks: readonly string[]): AddressJudge {
  const refused = blocksOf(refusedNetworks);
  return (host, address) => {
    const kind = addressClass(address);
    if (!allowed.includes(kind)) return forbidden(`${host} leads to an address that is ${kind}`);
    if (refused.check(address, isIPv6(address) ? "ipv6" : "ipv4"))
      return forbidden(`${host} leads to an address that the operator refuses`);
    return undefined;
  };
}

function allowedClasses(
  { url }: Target,
  { privateNetworks, loopback, plainPublic }: GuardOptions,
): readonly AddressClass[] {
  if (url.protocol === "http:" && plainPublic !== true) return ["loopback"];
  return [
    "public",
    ...(privateNetworks ? (["private", "own"] as const) : []),
    ...(loopback ? (["loopback"] as const) : []),
  ];
}

/** @param networks CIDR blocks, which the settings have checked */
function blocksOf(networks: readonly string[]): BlockList {
  const blocks = new BlockList();
  for (const network of networks) {
    const [address = "", bits = ""] = network.split("/");
    blocks.addSubnet(address, Number(bits), isIPv6(address) ? "ipv6" : "ipv4");
  }
  return blocks;
}

function resolverOf({ privateNetworks, loopback, nameServers }: GuardOptions): NonNullable<GuardOptions["resolve"]> {
  if (privateNetworks || loopback) return systemAddresses;
  return (name, signal) => dnsAddresses(name, signal, nameServers);
}

/** A and AAAA from the name servers. A family that is not there, or whose server is away, leaves the other. */
async function dnsAddresses(
  name: string,
  signal: AbortSignal,
  servers: readonly string[] | undefined,
): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: 2000, tries: 2 });
  if (servers !== undefined) resolver.setServers(servers);
  const stop = (): void => resolver.cancel();
  signal.addEventListener("abort", stop, { once: true });
  try {
    const [v4, v6] = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    return [...(v4.status === "fulfilled" ? v4.value : []), ...(v6.status === "fulfilled" ? v6.value : [])];
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

/** As the system knows it: names inside a network stand in its hosts file and search domains. */
async function systemAddresses(name: string): Promise<readonly string[]> {
  return (await lookup(name, { all: true, order: "ipv4first" })).map(({ address }) => address);
}

/** What cannot be cancelled is left behind at the deadline. */
function before<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const stop = (): void => late.reject(new DOMException("late", "TimeoutError"));
  signal.addEventListener("abort", stop, { once: true });
  return Promise.race([work, late.promise]).finally(() => signal.removeEventListener("abort", stop));
}

function forbidden(message: string): EgressError {
  return new EgressError("forbidden", message, undefined, 4);
}
