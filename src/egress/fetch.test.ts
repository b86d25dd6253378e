/**
 * Where the way out to a hub leads: every address judged before a byte is sent, whatever the name or a redirect says.
 */
import assert from "node:assert/strict";
import type { lookup as systemLookup } from "node:dns";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { Egress } from "./fetch.ts";
import { EgressError, type EgressPolicy } from "./policy.ts";

type Lookup = typeof systemLookup;

/** Names lead where the test says. */
function leading(places: Readonly<Record<string, readonly string[]>>): Lookup {
  const found = (name: string) =>
    (places[name] ?? []).map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
  return ((name: string, _: unknown, done: (error: Error | null, all: unknown) => void) =>
    done(null, found(name))) as unknown as Lookup;
}

function out(t: TestContext, policy: Partial<EgressPolicy>, places: Parameters<typeof leading>[0] = {}): Egress {
  const whole = { hosts: [], plainLoopback: true, near: false, refusedNetworks: [], ...policy };
  const egress = new Egress(whole, { connectMs: 1000 }, undefined, leading(places));
  t.after(() => egress.close());
  return egress;
}

const refused = (attempt: Promise<unknown>, message: RegExp): Promise<void> =>
  assert.rejects(attempt, (error) => {
    assert.ok(error instanceof EgressError, String(error));
    assert.match(error.message, message);
    assert.deepEqual([error.code, error.rule], ["forbidden", 4]);
    return true;
  });

test("a public hub leads to public addresses only, and one bad address refuses all", async (t) => {
  for (const [address, kind] of [
    ["127.0.0.1", "loopback"],
    ["10.1.2.3", "private"],
    ["169.254.169.254", "link-local"],
    ["100.100.100.200", "metadata"],
    ["::ffff:10.0.0.1", "embedded"],
    ["fe80::1", "link-local"],
    ["224.0.0.1", "multicast"],
  ] as const)
    for (const all of [[address], ["93.184.216.34", address]])
      await refused(
        out(t, { hosts: ["hub.example"] }, { "hub.example": all }).fetch("https://hub.example/x"),
        new RegExp(`hub\\.example leads to an address that is ${kind}`),
      );
});

test("a hub of one's own may be near, and never where clouds keep credentials", async (t) => {
  const policy = { hosts: ["hub.example"], near: true, refusedNetworks: ["10.9.0.0/16"] };
  for (const address of ["169.254.169.254", "100.100.100.200", "0.0.0.0", "ff02::1", "fd00:ec2::254"])
    await refused(
      out(t, policy, { "hub.example": [address] }).fetch("https://hub.example/x"),
      /leads to an address that is/,
    );
  await refused(
    out(t, policy, { "hub.example": ["10.9.1.1"] }).fetch("https://hub.example/x"),
    /that the operator refuses/,
  );
});

test("an address in place of a name is judged, too; a redirect as what was asked for", async (t) => {
  await refused(out(t, { hosts: ["169.254.169.254"], near: true }).fetch("https://169.254.169.254/"), /link-local/);
  let asked = 0;
  const server = createServer((_, response) => {
    asked++;
    response.writeHead(302, { location: "https://storage.example/y" }).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const hosts = [`127.0.0.1:${port}`, "storage.example"];
  const places = { "storage.example": ["169.254.169.254"] };
  await refused(
    out(t, { hosts, near: true }, places).fetch(`http://127.0.0.1:${port}/x`),
    /storage\.example leads to an address that is link-local/,
  );
  assert.equal(asked, 1);
  await refused(out(t, { hosts }).fetch(`http://127.0.0.1:${port}/x`), /is loopback/);
  assert.equal(asked, 1);
});
