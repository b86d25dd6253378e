import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { test } from "node:test";
import { AUTH, closed, dial, exchange, message, rig, statusesOf, until } from "#test/http/harness.ts";
import { Connections, sharedBy } from "./_connections.ts";
import { Counters } from "./counters.ts";
import { events } from "./reply.ts";

test("one address: an IPv4 address as it is, of an IPv6 one the first 64 bits; this machine has none", () => {
  const same: [string | undefined, string | undefined][] = [
    ["192.0.2.1", "192.0.2.1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["2001:db8:1:2::", "2001:db8:1:2::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["::2", "0:0:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["127.0.0.1", undefined],
    ["127.9.9.9", undefined],
    ["::ffff:127.0.0.1", undefined],
    ["::1", undefined],
    [undefined, undefined],
  ];
  for (const [address, shared] of same) assert.equal(sharedBy(address), shared, address);
});

class FakeSocket extends EventEmitter {
  destroyed = false;
  readonly remoteAddress: string;
  readonly remotePort: number;
  constructor(address: string, port: number) {
    super();
    this.remoteAddress = address;
    this.remotePort = port;
  }
  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.emit("close");
  }
}

function fake(address: string, port = 1): { socket: Socket; end: () => void } {
  const socket = new FakeSocket(address, port);
  return { socket: socket as unknown as Socket, end: () => socket.destroy() };
}

test("an address has so many connections; loopback as many as it wants; places come back", () => {
  const counters = new Counters();
  const connections = new Connections(
    { maxConnectionsPerAddress: 2, maxHandshakes: 2, proxies: ["198.51.100.0/24"] },
    counters,
  );
  const [a, b, c] = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map((address) => fake(address));
  assert.ok(a && b && c);
  assert.deepEqual(
    [a, b, c].map(({ socket }) => connections.admit(socket)),
    [true, true, false],
  );
  assert.equal(connections.admit(fake("2001:db8:1::1").socket), true);
  a.end();
  assert.equal(connections.admit(c.socket), true);
  const before = counters.sockets;
  for (let i = 0; i < 100; i++) assert.equal(connections.admit(fake("127.0.0.1", i).socket), true);
  for (let i = 0; i < 100; i++) assert.equal(connections.admit(fake("::ffff:198.51.100.7", i).socket), true);
  assert.equal(counters.sockets, before + 200);
  const free = new Connections(
    { maxConnectionsPerAddress: 0, maxHandshakes: 2, proxies: ["198.51.100.0/24"] },
    counters,
  );
  for (let i = 0; i < 100; i++) assert.equal(free.admit(fake("192.0.2.1", i).socket), true);
});

test("a connection over its age is answered once more and closes; a younger one goes on", async (t) => {
  const { port, http } = await rig(t, { options: { maxConnectionAgeMs: 300 } });
  const get = message("GET /v1/models", [AUTH]).replace("Connection: close\r\n", "");
  const socket = dial(port);
  let text = "";
  socket.on("data", (data) => {
    text += data.toString("latin1");
  });
  const opened = performance.now();
  for (let asked = 1; asked < 1000 && !socket.destroyed; asked++) {
    socket.write(get);
    await until(() => statusesOf(text).length >= asked || socket.destroyed, "an answer");
    if (/connection: close/i.test(text)) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await closed(socket);
  assert.ok(performance.now() - opened >= 300);
  assert.ok(statusesOf(text).length > 1 && statusesOf(text).every((status) => status === 200));
  await until(() => http.counters().sockets === 0, "it is gone");
});

test("an answer that is under way when the age comes is not cut", async (t) => {
  const { port } = await rig(t, {
    options: { maxConnectionAgeMs: 50 },
    chat: () =>
      events(
        (async function* () {
          for (let i = 0; i < 10; i++) {
            yield `data: ${i}\n\n`;
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
        })(),
      ),
  });
  const answer = await exchange(port, message("POST /v1/chat", [AUTH], JSON.stringify({ messages: ["hi"] })));
  assert.match(answer, /data: 9\n\n/);
});
