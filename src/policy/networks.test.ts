import assert from "node:assert/strict";
import { test } from "node:test";
import { canonicalAddress, inNetworks, networkProblem } from "./networks.ts";

test("networks are addresses and CIDR blocks of either family", () => {
  for (const good of [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "192.0.2.1",
    "192.0.2.1/32",
    "::/0",
    "::1",
    "2001:db8::/32",
    "fe80::/10",
  ])
    assert.equal(networkProblem(good), undefined, good);
  for (const bad of [
    "",
    "10.0.0.0/33",
    "10.0.0.0/",
    "10.0.0.0/-1",
    "10.0.0.0/08",
    "10.0.0/8",
    "10.0.0.0/8/8",
    "a.b",
    "::/129",
    "fe80::1%eth0",
    "010.0.0.0/8",
    "0x7f.1",
    "*",
    " 10.0.0.0/8",
  ])
    assert.match(networkProblem(bad) ?? "", /is no network/, bad);
});

test("an address lies in a block by its bits", () => {
  const cases: readonly [network: string, inside: readonly string[], outside: readonly string[]][] = [
    [
      "10.0.0.0/8",
      ["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"],
      ["9.255.255.255", "11.0.0.0", "::10.1.1.1", "::1"],
    ],
    ["192.0.2.128/25", ["192.0.2.128", "192.0.2.255"], ["192.0.2.127", "192.0.3.128"]],
    ["192.0.2.1", ["192.0.2.1"], ["192.0.2.0", "192.0.2.2"]],
    ["0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["2001:db8::1"]],
    ["2001:db8::/33", ["2001:db8:7fff::1", "2001:0DB8:0::1"], ["2001:db8:8000::", "10.0.0.1"]],
    ["fe80::/10", ["fe80::1%eth0", "febf::1"], ["fec0::1"]],
  ];
  for (const [network, inside, outside] of cases) {
    for (const address of inside) assert.equal(inNetworks([network], address), true, `${address} in ${network}`);
    for (const address of outside) assert.equal(inNetworks([network], address), false, `${address} in ${network}`);
  }
});

test("nothing lies in an empty list, and what is no address lies nowhere", () => {
  assert.equal(inNetworks([], "10.0.0.1"), false);
  for (const address of [undefined, "", "localhost", "10.0.0.1, 10.0.0.2", "10.0.0.1:80", "unknown", "10.0.0.1\0"])
    assert.equal(inNetworks(["0.0.0.0/0", "::/0"], address), false, String(address));
  assert.equal(inNetworks(["nonsense", "10.0.0.0/8"], "10.0.0.1"), true);
});

test("an address has one form", () => {
  assert.equal(canonicalAddress("::ffff:192.0.2.1"), "192.0.2.1");
  assert.equal(canonicalAddress("::FFFF:192.0.2.1"), "192.0.2.1");
  assert.equal(canonicalAddress("fe80::1%eth0"), "fe80::1");
  assert.equal(canonicalAddress("::ffff:999.0.2.1"), undefined);
});
