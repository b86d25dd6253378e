/**
 * Networks and addresses: whether an address lies in one of a list of CIDR blocks. Pure; opens nothing.
 *
 * An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address. What cannot be read lies nowhere.
 */
import { BlockList, isIP } from "node:net";

const BITS = { 4: 32, 6: 128 } as const;
const PREFIX = /^(?:0|[1-9][0-9]{0,2})$/;

/** @returns what is wrong with it; undefined: it is an address or a CIDR block */
export function networkProblem(text: string): string | undefined {
  return readNetwork(text) === undefined ? `${JSON.stringify(text)} is no network such as 10.0.0.0/8` : undefined;
}

interface Network {
  readonly address: string;
  readonly bits: number;
  readonly family: "ipv4" | "ipv6";
}

function readNetwork(text: string): Network | undefined {
  const [address = "", prefix, rest] = text.split("/");
  const version = isIP(address) as 0 | 4 | 6;
  if (version === 0 || address.includes("%") || rest !== undefined) return undefined;
  const bits = prefix === undefined ? BITS[version] : PREFIX.test(prefix) ? Number(prefix) : -1;
  if (bits < 0 || bits > BITS[version]) return undefined;
  return { address, bits, family: version === 4 ? "ipv4" : "ipv6" };
}

/** Lists that were asked about, by their identity: a principal's list stays the same object. */
const lists = new WeakMap<readonly string[], BlockList>();

/** @param address undefined: unknown, which lies in no network */
export function inNetworks(networks: readonly string[], address: string | undefined): boolean {
  if (address === undefined) return false;
  const plain = canonicalAddress(address);
  if (plain === undefined) return false;
  return listOf(networks).check(plain, isIP(plain) === 4 ? "ipv4" : "ipv6");
}

function listOf(networks: readonly string[]): BlockList {
  const known = lists.get(networks);
  if (known !== undefined) return known;
  const list = new BlockList();
  for (const text of networks) {
    const network = readNetwork(text);
    if (network !== undefined) list.addSubnet(network.address, network.bits, network.family);
  }
  lists.set(networks, list);
  return list;
}

const MAPPED = /^::ffff:([0-9.]+)$/i;

/** Without a zone, IPv4 as IPv4. @returns undefined: no address */
export function canonicalAddress(text: string): string | undefined {
  const [bare = ""] = text.split("%");
  const mapped = MAPPED.exec(bare)?.[1];
  if (mapped !== undefined && isIP(mapped) === 4) return mapped;
  return isIP(bare) === 0 ? undefined : bare;
}
