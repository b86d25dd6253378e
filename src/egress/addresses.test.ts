import assert from "node:assert/strict";
import { networkInterfaces } from "node:os";
import { test } from "node:test";
import { type AddressClass, addressClass, sameAddress } from "./addresses.ts";

/**
 * Both ends of every block of the IANA IPv4 and IPv6 special-purpose registries, with their neighbours outside; and what
 * clouds use. Written out, not computed.
 */
const TABLE: readonly (readonly [AddressClass, ...string[]])[] = [
  ["public", "1.0.0.0", "9.255.255.255", "11.0.0.0", "8.8.8.8", "93.184.216.34", "223.255.255.255"],
  ["public", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"],
  ["public", "172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "191.255.255.255", "192.0.1.0"],
  ["public", "192.0.3.0", "192.88.98.255", "192.88.100.0", "198.17.255.255", "198.20.0.0", "198.51.99.255"],
  ["public", "198.51.101.0", "203.0.112.255", "203.0.114.0", "168.63.129.15", "168.63.129.17"],
  ["reserved", "0.0.0.0", "0.255.255.255", "0.0.0.1"],
  ["private", "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"],
  ["private", "100.64.0.0", "100.127.255.255", "100.100.100.199"],
  ["loopback", "127.0.0.0", "127.0.0.1", "127.255.255.255"],
  ["link-local", "169.254.0.0", "169.254.169.254", "169.254.170.2", "169.254.255.255"],
  ["metadata", "100.100.100.200", "168.63.129.16", "192.0.0.192"],
  ["reserved", "192.0.0.0", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.171", "192.0.0.255"],
  ["reserved", "192.0.2.0", "192.0.2.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255"],
  ["reserved", "192.31.196.0", "192.31.196.255", "192.52.193.0", "192.52.193.255", "192.88.99.0", "192.88.99.255"],
  ["reserved", "192.175.48.0", "192.175.48.255", "198.18.0.0", "198.19.255.255", "240.0.0.0", "255.255.255.254"],
  ["reserved", "255.255.255.255"],
  ["multicast", "224.0.0.0", "224.0.0.1", "239.255.255.255"],

  ["public", "2000::", "2606:4700:4700::1111", "2a00:1450:4001:80e::200e", "2001:200::", "2001:4860:4860::8888"],
  ["public", "2003::", "2001:db7:ffff::", "2001:db9::", "2620:4f:7fff::", "2620:4f:8001::", "3ffe::", "3fff:1000::"],
  ["public", "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
  ["loopback", "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001"],
  ["reserved", "::"],
  ["embedded", "::2", "::127.0.0.1", "::7f00:1", "::93.184.216.34", "::ffff:0:0", "::ffff:127.0.0.1"],
  ["embedded", "::ffff:7f00:1", "::FFFF:93.184.216.34", "::ffff:255.255.255.255", "::ffff:0:127.0.0.1"],
  ["embedded", "64:ff9b::7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::ffff:ffff", "64:ff9b:1::", "64:ff9b:1:ffff::1"],
  ["embedded", "2002::", "2002:7f00:1::", "2002:ffff:ffff::", "2001::", "2001:0:7f00:1::", "2001:0:ffff::1"],
  ["reserved", "2001:1::1", "2001:1::2", "2001:1::3", "2001:2::", "2001:3::", "2001:4:112::", "2001:10::", "2001:20::"],
  ["reserved", "2001:30::", "2001:1ff:ffff::", "2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff:ffff::1"],
  ["reserved", "2620:4f:8000::", "2620:4f:8000:ffff::1", "100::", "100::1", "100:0:0:1::", "100:0:0:1:ffff::1"],
  ["reserved", "5f00::", "5f00:ffff::1", "4000::", "1fff:ffff::", "64:ff9b:2::", "8000::", "fec0::", "feff::1"],
  ["reserved", "200::1", "400::", "fbff::"],
  ["private", "fc00::", "fd00::1", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:ec2::253"],
  ["metadata", "fd00:ec2::254", "fd20:ce::254"],
  ["link-local", "fe80::", "fe80::1", "febf:ffff::1"],
  ["multicast", "ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],

  ["invalid", "", "localhost", "1.2.3", "1.2.3.4.5", "256.0.0.1", "0x7f.1", "0177.0.0.1", "2130706433", "1.2.3.4:80"],
  ["invalid", "[::1]", "::1%lo", "fe80::1%eth0", "2606:4700::1%1", ":::", "1::2::3", "12345::", " 1.1.1.1", "1.1.1.1 "],
  ["invalid", "①②⑦.0.0.1", "127。0。0。1", "01.1.1.1"],
];

test("every address has its class", () => {
  const counts = TABLE.flatMap(([kind, ...addresses]) =>
    addresses.map((address) => {
      assert.equal(addressClass(address), kind, address);
      return kind;
    }),
  );
  assert.ok(counts.length > 150);
});

test("a public address of this machine is its own", () => {
  const found = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  for (const { address } of found) assert.notEqual(addressClass(address.split("%")[0] ?? ""), "public", address);
});

test("two spellings are one address", () => {
  for (const [a, b] of [
    ["::1", "0:0:0:0:0:0:0:1"],
    ["2001:DB8::a", "2001:db8:0:0::A"],
    ["::ffff:1.2.3.4", "::ffff:102:304"],
    ["1.2.3.4", "1.2.3.4"],
  ] as const)
    assert.ok(sameAddress(a, b), a);
  for (const [a, b] of [
    ["::ffff:1.2.3.4", "1.2.3.4"],
    ["::1", "::2"],
    ["fe80::1%lo", "fe80::1"],
    ["", ""],
    ["x", "x"],
  ] as const)
    assert.ok(!sameAddress(a, b), a);
});
