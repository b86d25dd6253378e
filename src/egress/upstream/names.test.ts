import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { namedServers } from "./names.ts";
import { UpstreamPlaceError, upstreamPlace } from "./place.ts";

interface Zone {
  readonly a?: Readonly<Record<string, readonly string[]>>;
  readonly srv?: Readonly<
    Record<string, readonly (readonly [priority: number, weight: number, port: number, name: string])[]>
  >;
  readonly ttl?: number;
}

const [A, SRV] = [1, 33];

function nameBytes(name: string): Buffer {
  const labels = name.split(".").filter((label) => label !== "");
  return Buffer.concat([
    ...labels.map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
    Buffer.from([0]),
  ]);
}

function answerTo(query: Buffer, zone: Zone): Buffer {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.subarray(at + 1, at + 1 + length).toString());
    at += length + 1;
  }
  const question = query.subarray(12, at + 5);
  const type = query.readUInt16BE(at + 1);
  const name = labels.join(".");
  const data =
    type === A
      ? (zone.a?.[name] ?? []).map((address) => Buffer.from(address.split(".").map(Number)))
      : type === SRV
        ? (zone.srv?.[name] ?? []).map(([priority, weight, port, target]) => {
            const numbers = Buffer.alloc(6);
            for (const [i, number] of [priority, weight, port].entries()) numbers.writeUInt16BE(number, i * 2);
            return Buffer.concat([numbers, nameBytes(target)]);
          })
        : [];
  const known = zone.a?.[name] !== undefined || zone.srv?.[name] !== undefined;
  const head = Buffer.alloc(12);
  query.copy(head, 0, 0, 2);
  head.writeUInt16BE(known ? 0x8180 : 0x8183, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(data.length, 6);
  const records = data.map((bytes) => {
    const record = Buffer.alloc(12);
    record.writeUInt16BE(0xc00c, 0);
    record.writeUInt16BE(type, 2);
    record.writeUInt16BE(1, 4);
    record.writeUInt32BE(zone.ttl ?? 30, 6);
    record.writeUInt16BE(bytes.length, 10);
    return Buffer.concat([record, bytes]);
  });
  return Buffer.concat([head, question, ...records]);
}

async function nameServer(t: TestContext, zone: () => Zone): Promise<string> {
  const socket = createSocket("udp4");
  socket.on("message", (query, from) => socket.send(answerTo(query, zone()), from.port, from.address));
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  t.after(() => socket.close());
  return `127.0.0.1:${socket.address().port}`;
}

type Named = Parameters<typeof namedServers>[0];

test("all addresses of a name; their time to live; those that no upstream has are left out", async (t) => {
  let zone: Zone = { a: { "vllm.default.svc": ["10.0.0.1", "10.0.0.2", "169.254.169.254", "8.8.8.8"] } };
  const options = { intervalMs: 60_000, plainAnywhere: false, nameServers: [await nameServer(t, () => zone)] };
  const place = upstreamPlace("dns+http://vllm.default.svc:8000", false) as Named;
  const found = await namedServers(place, options);
  assert.deepEqual(found, {
    ttlMs: 30_000,
    servers: ["10.0.0.1", "10.0.0.2"].map((address) => ({
      key: `${address}:8000`,
      address,
      origin: "http://vllm.default.svc:8000",
      weight: 1,
    })),
  });
  const secure = await namedServers(upstreamPlace("dns+https://vllm.default.svc:8000", false) as Named, options);
  assert.deepEqual(
    secure.servers.map(({ address }) => address),
    ["10.0.0.1", "10.0.0.2", "8.8.8.8"],
  );
  zone = { a: { "vllm.default.svc": ["10.0.0.3"] }, ttl: 1 };
  const later = await namedServers(place, options);
  assert.deepEqual([later.servers.map(({ key }) => key), later.ttlMs], [["10.0.0.3:8000"], 1000]);
  zone = { a: { "vllm.default.svc": ["169.254.169.254"] } };
  await assert.rejects(namedServers(place, options), /no address that may be used/);
  zone = {};
  await assert.rejects(namedServers(place, options));
  zone = { a: { "vllm.default.svc": Array.from({ length: 70 }, (_, i) => `10.0.1.${i}`) } };
  await assert.rejects(namedServers(place, options));
});

test("SRV: the first priority, weights in proportion, each target's addresses", async (t) => {
  const name = "_http._tcp.vllm.default.svc";
  const zone: Zone = {
    srv: {
      [name]: [
        [10, 20, 8000, "a.svc"],
        [10, 10, 8001, "b.svc"],
        [10, 0, 8002, "b.svc"],
        [20, 100, 8000, "spare.svc"],
      ],
    },
    a: { "a.svc": ["10.0.0.1"], "b.svc": ["10.0.0.2"], "spare.svc": ["10.0.0.9"] },
  };
  const options = { intervalMs: 5000, plainAnywhere: false, nameServers: [await nameServer(t, () => zone)] };
  const found = await namedServers(upstreamPlace(`dns+srv://${name}`, false) as Named, options);
  assert.deepEqual(
    found.servers.map(({ key, origin, weight }) => [key, origin, weight]),
    [
      ["10.0.0.1:8000", "http://a.svc:8000", 1],
      ["10.0.0.2:8001", "http://b.svc:8001", 0.5],
      ["10.0.0.2:8002", "http://b.svc:8002", 0.01],
    ],
  );
  assert.equal(found.ttlMs, 5000);
});

test("places: what is taken, and what is not", () => {
  assert.deepEqual(upstreamPlace("http://127.0.0.1:8001", false), {
    kind: "fixed",
    secure: false,
    origin: "http://127.0.0.1:8001",
  });
  assert.deepEqual(upstreamPlace("https://gpu.example:443/", false), {
    kind: "fixed",
    secure: true,
    origin: "https://gpu.example",
  });
  assert.deepEqual(upstreamPlace("http://[::1]:8000", false).kind, "fixed");
  assert.deepEqual(upstreamPlace("unix:/run/vllm.sock", false), { kind: "unix", socketPath: "/run/vllm.sock" });
  assert.deepEqual(upstreamPlace("dns+srvs://_https._tcp.vllm", false), {
    kind: "srv",
    secure: true,
    name: "_https._tcp.vllm",
  });
  assert.deepEqual(upstreamPlace("dns+https://vllm", false), {
    kind: "addresses",
    secure: true,
    name: "vllm",
    port: 443,
  });
  assert.equal(upstreamPlace("http://8.8.8.8:8000", true).kind, "fixed");
  assert.equal(upstreamPlace("https://8.8.8.8", false).kind, "fixed");
  for (const bad of [
    "127.0.0.1:8000",
    "ftp://a",
    "http://a/v1",
    "http://a?b",
    "http://a#b",
    "http://user:pass@a",
    "http://0x7f.1:80",
    "http://2130706433",
    "http://A:80",
    "http://a:99999",
    "http://a b",
    "http://8.8.8.8:8000",
    "http://169.254.169.254",
    "https://169.254.169.254",
    "http://[::ffff:127.0.0.1]",
    "http://",
    "unix:run",
    `unix:/${"a".repeat(200)}`,
    "dns+srv://a b",
    "dns+srv://127.0.0.1",
    "dns+http://10.0.0.1:80",
  ])
    assert.throws(() => upstreamPlace(bad, false), UpstreamPlaceError, bad);
});
