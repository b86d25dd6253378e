/**
 * What kind of place an IP address is: the IANA special-purpose registries, multicast, and what clouds put on public
 * ones. Pure; takes numbers, never names.
 *
 * Invariant: "public" is what is left over. IPv6 is public inside 2000::/3 only, less the blocks there that are not; an
 * address that carries an IPv4 address in it (mapped, NAT64, 6to4, Teredo …) is never public, as it may be read as either.
 * Callers: guarded-fetch.ts.
 */
import { isIPv4, isIPv6 } from "node:net";
import { networkInterfaces } from "node:os";

export type AddressClass =
  | "public"
  /** This machine: 127.0.0.0/8, ::1. */
  | "loopback"
  /** A public address of one of this machine's interfaces. */
  | "own"
  /** RFC 1918, RFC 4193, and RFC 6598 (behind a carrier's or an overlay's NAT). */
  | "private"
  | "link-local"
  /** Where clouds answer their machines with credentials, besides 169.254.169.254. */
  | "metadata"
  /** An IPv6 address that stands for an IPv4 one. */
  | "embedded"
  | "multicast"
  /** Documentation, benchmarks, protocol assignments, not yet given out. */
  | "reserved"
  /** Not the text of an address; one with a zone. */
  | "invalid";

type Block = readonly [prefix: string, bits: number, kind: AddressClass];

/** The first that matches decides. */
const V4: readonly Block[] = [
  ["127.0.0.0", 8, "loopback"],
  ["100.100.100.200", 32, "metadata"],
  ["168.63.129.16", 32, "metadata"],
  ["192.0.0.192", 32, "metadata"],
  ["10.0.0.0", 8, "private"],
  ["100.64.0.0", 10, "private"],
  ["172.16.0.0", 12, "private"],
  ["192.168.0.0", 16, "private"],
  ["169.254.0.0", 16, "link-local"],
  ["0.0.0.0", 8, "reserved"],
  ["192.0.0.0", 24, "reserved"],
  ["192.0.2.0", 24, "reserved"],
  ["192.31.196.0", 24, "reserved"],
  ["192.52.193.0", 24, "reserved"],
  ["192.88.99.0", 24, "reserved"],
  ["192.175.48.0", 24, "reserved"],
  ["198.18.0.0", 15, "reserved"],
  ["198.51.100.0", 24, "reserved"],
  ["203.0.113.0", 24, "reserved"],
  ["224.0.0.0", 4, "multicast"],
  ["240.0.0.0", 4, "reserved"],
  ["0.0.0.0", 0, "public"],
];

const V6: readonly Block[] = [
  ["::1", 128, "loopback"],
  ["::", 128, "reserved"],
  ["::", 96, "embedded"],
  ["::ffff:0:0", 96, "embedded"],
  ["::ffff:0:0:0", 96, "embedded"],
  ["64:ff9b::", 96, "embedded"],
  ["64:ff9b:1::", 48, "embedded"],
  ["2001::", 32, "embedded"],
  ["2002::", 16, "embedded"],
  ["fd00:ec2::254", 128, "metadata"],
  ["fd20:ce::254", 128, "metadata"],
  ["fc00::", 7, "private"],
  ["fe80::", 10, "link-local"],
  ["ff00::", 8, "multicast"],
  ["2001::", 23, "reserved"],
  ["2001:db8::", 32, "reserved"],
  ["2620:4f:8000::", 48, "reserved"],
  ["3fff::", 20, "reserved"],
  ["2000::", 3, "public"],
  ["::", 0, "reserved"],
];

interface Range {
  readonly from: bigint;
  readonly shift: bigint;
  readonly kind: AddressClass;
}

const V4_RANGES = V4.map((block) => range(block, 32));
const V6_RANGES = V6.map((block) => range(block, 128));

function range([prefix, bits, kind]: Block, width: number): Range {
  const shift = BigInt(width - bits);
  return { from: (width === 32 ? v4Number(prefix) : v6Number(prefix)) >> shift, shift, kind };
}

/** @param address as a resolver or a socket prints it: no brackets, no zone, no port */
export function addressClass(address: string): AddressClass {
  if (isIPv4(address)) return ownOr(address, find(V4_RANGES, v4Number(address)));
  if (!isIPv6(address) || address.includes("%")) return "invalid";
  return ownOr(address, find(V6_RANGES, v6Number(address)));
}

function find(ranges: readonly Range[], value: bigint): AddressClass {
  return ranges.find(({ from, shift }) => value >> shift === from)?.kind ?? "reserved";
}

/** Interfaces come and go, so they are asked each time; a call to this is followed by a connection. */
function ownOr(address: string, kind: AddressClass): AddressClass {
  if (kind !== "public") return kind;
  const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return own.some((each) => sameAddress(each.address, address)) ? "own" : kind;
}

/** Whether two texts name one address. */
export function sameAddress(a: string, b: string): boolean {
  if (isIPv4(a) && isIPv4(b)) return v4Number(a) === v4Number(b);
  if (!isIPv6(a) || !isIPv6(b) || a.includes("%") || b.includes("%")) return false;
  return v6Number(a) === v6Number(b);
}

function v4Number(text: string): bigint {
  return text.split(".").reduce((value, part) => value * 256n + BigInt(Number(part)), 0n);
}

/** Of a text that isIPv6 accepts, without a zone. */
function v6Number(text: string): bigint {
  const [head = "", tail] = text.split("::");
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...Array<number>(8 - left.length - right.length).fill(0), ...right];
  return all.reduce((value, group) => (value << 16n) | BigInt(group), 0n);
}

/** 16-bit groups; a dotted end makes two. */
function groups(text: string): number[] {
  if (text === "") return [];
  return text.split(":").flatMap((part) => {
    if (!part.includes(".")) return [Number.parseInt(part, 16)];
    const value = Number(v4Number(part));
    return [Math.floor(value / 65_536), value % 65_536];
  });
}
