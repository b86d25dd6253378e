import assert from "node:assert/strict";
import { test } from "node:test";
import { type FindClient, trustProxies } from "./client-address.ts";

function rule(...proxies: string[]): FindClient {
  const made = trustProxies(proxies);
  assert.ok(!("problem" in made));
  return made;
}

const PROXY = { address: "10.0.0.1" };
const client = (find: FindClient, headers: string[], peer: { address: string | undefined } = PROXY) =>
  find(peer, headers).address;

test("without a rule no header is believed, and none from an address outside of it", () => {
  const headers = ["X-Forwarded-For", "192.0.2.9", "Forwarded", "for=192.0.2.9", "X-Real-IP", "192.0.2.9"];
  assert.equal(client(rule(), headers), "10.0.0.1");
  assert.equal(client(rule("10.0.0.0/8"), headers, { address: "203.0.113.5" }), "203.0.113.5");
  assert.equal(client(rule("10.0.0.0/8"), headers, { address: undefined }), undefined);
  assert.equal(client(rule("unix"), headers, { address: "127.0.0.1" }), "127.0.0.1");
  assert.equal(client(rule("unix"), headers.slice(0, 2), { address: undefined }), "192.0.2.9");
});

test("the client is the first hop from the right that is not trusted", () => {
  const find = rule("10.0.0.0/8", "2001:db8::/32");
  const cases: readonly [header: string, expected: string | undefined][] = [
    ["192.0.2.9", "192.0.2.9"],
    ["198.51.100.1, 192.0.2.9", "192.0.2.9"],
    ["198.51.100.1, 192.0.2.9, 10.0.0.2", "192.0.2.9"],
    ["10.9.9.9, 192.0.2.9, 10.0.0.2,10.0.0.3", "192.0.2.9"],
    ["192.0.2.9, 2001:db8::7", "192.0.2.9"],
    ["10.0.0.4, 10.0.0.2", "10.0.0.4"],
    ["192.0.2.9:4711", "192.0.2.9"],
    ["[2001:db9::1]:4711", "2001:db9::1"],
    ["[2001:db9::1]", "2001:db9::1"],
    ["::ffff:192.0.2.9", "192.0.2.9"],
    ["192.0.2.9, unknown", undefined],
    ["192.0.2.9, ", undefined],
    ["192.0.2.9, localhost", undefined],
    ["192.0.2.9;10.0.0.2", undefined],
    ["", undefined],
  ];
  for (const [header, expected] of cases) assert.equal(client(find, ["x-forwarded-for", header]), expected, header);
  assert.equal(client(find, []), "10.0.0.1", "the proxy speaks for itself");
  const two = ["X-Forwarded-For", "198.51.100.1", "Host", "x", "x-forwarded-for", "192.0.2.9"];
  assert.equal(client(find, two), "192.0.2.9", "several lines are one list");
});

test("Forwarded is read as RFC 7239 writes it", () => {
  const find = rule("10.0.0.0/8");
  const cases: readonly [header: string, expected: string | undefined][] = [
    ["for=192.0.2.9", "192.0.2.9"],
    ['For="[2001:db9::1]:4711";proto=https;by=10.0.0.1', "2001:db9::1"],
    ["for=198.51.100.1, for=192.0.2.9;proto=http, for=10.0.0.2", "192.0.2.9"],
    ['by="a,b;for=1.1.1.1";for=192.0.2.9', "192.0.2.9"],
    ["proto=https", undefined],
    ["for=unknown", undefined],
    ["for=_hidden", undefined],
    ["for=192.0.2.9;for=192.0.2.8", undefined],
    ['for="192.0.2.9, for=192.0.2.8', undefined],
    ["xfor=192.0.2.9", undefined],
  ];
  for (const [header, expected] of cases) assert.equal(client(find, ["Forwarded", header]), expected, header);
});

test("two headers that differ are nobody's address", () => {
  const find = rule("10.0.0.0/8");
  assert.equal(client(find, ["x-forwarded-for", "192.0.2.9", "forwarded", "for=192.0.2.9"]), "192.0.2.9");
  assert.equal(client(find, ["x-forwarded-for", "192.0.2.9", "forwarded", "for=192.0.2.8"]), undefined);
  assert.equal(client(find, ["x-forwarded-for", "192.0.2.8, 192.0.2.9", "forwarded", "for=192.0.2.9"]), undefined);
});

test("a certificate stays with its connection, and a rule that cannot be read is told", () => {
  const certificate = { fingerprint: "aa", subject: "CN=a", uris: [], notBefore: 0, notAfter: 1 };
  const found = rule("10.0.0.0/8")({ ...PROXY, certificate }, ["x-forwarded-for", "192.0.2.9"]);
  assert.deepEqual(found, { address: "192.0.2.9", certificate });
  assert.match((trustProxies(["10.0.0.0/8", "nginx"]) as { problem: string }).problem, /"nginx"/);
});
