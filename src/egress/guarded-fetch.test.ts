import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { createServer as createPlain, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import { createServer as createTcp } from "node:net";
import { type TestContext, test } from "node:test";
import { gzipSync } from "node:zlib";
import { type Authority, authority } from "#test/fixtures/certificates.ts";
import { type GuardOptions, guardedGet } from "./guarded-fetch.ts";
import { EgressError } from "./policy.ts";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const ca: Authority = await authority();
const leaf = await ca.issue({ names: ["dns:idp.test", "ip:127.0.0.1"] });

async function listen<S extends Server>(t: TestContext, server: S): Promise<number> {
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => {
    if ("closeAllConnections" in server) (server as unknown as { closeAllConnections(): void }).closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

interface Rig {
  readonly port: number;
  readonly seen: IncomingMessage[];
  connections: number;
  answer: Answer;
  get(path?: string, options?: Partial<GuardOptions>): ReturnType<typeof guardedGet>;
}

async function rig(t: TestContext, answer: Answer = (_, response) => void response.end("{}")): Promise<Rig> {
  const server = createServer({ cert: leaf.cert, key: leaf.key }, (request, response) => {
    made.seen.push(request);
    made.answer(request, response);
  });
  server.on("connection", () => made.connections++);
  const port = await listen(t, server);
  const made: Rig = {
    port,
    seen: [],
    connections: 0,
    answer,
    get: (path = "/keys", options = {}) =>
      guardedGet(`https://idp.test:${port}${path}`, { ...common(port), ...options }),
  };
  return made;
}

const common = (port: number): GuardOptions => ({
  hosts: [`idp.test:${port}`],
  loopback: true,
  ca: ca.cert,
  deadlineMs: 20_000,
  maxBytes: 1000,
  accept: "application/json",
  resolve: async () => ["127.0.0.1"],
});

const refused = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof EgressError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
  return true;
};

test("one plain GET: its host and name, no encodings, no credentials", async (t) => {
  const server = await rig(t, (_, response) => void response.writeHead(404).end("not here"));
  assert.deepEqual(await server.get("/a?b=c"), { status: 404, type: undefined, body: Buffer.from("not here") });
  const [request] = server.seen;
  assert.equal(request?.url, "/a?b=c");
  assert.deepEqual(request?.rawHeaders, [
    "host",
    `idp.test:${server.port}`,
    "accept",
    "application/json",
    "accept-encoding",
    "identity",
    "user-agent",
    "castellan",
    "connection",
    "close",
  ]);
});

test("one bad address among all refuses the name before a connection", async (t) => {
  const server = await rig(t);
  const bad = [
    "10.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "::1",
    "::ffff:127.0.0.1",
    "fd00::1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1%eth0",
    "0.0.0.0",
    "not an address",
  ];
  for (const address of bad)
    for (const answers of [[address], ["93.184.216.34", address], [address, "2606:4700::1111"]])
      await assert.rejects(
        server.get("/", { loopback: false, resolve: async () => answers }),
        refused("forbidden", /leads to an address that is/),
        answers.join(),
      );
  for (const address of ["169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::ffff:10.0.0.1", "224.0.0.1"])
    await assert.rejects(
      server.get("/", { privateNetworks: true, resolve: async () => [address] }),
      refused("forbidden", /leads to an address that is/),
      "what is never allowed",
    );
  await assert.rejects(server.get("/", { loopback: false, privateNetworks: true }), refused("forbidden", /loopback/));
  await assert.rejects(server.get("/", { resolve: async () => [] }), refused("network", /no address/));
  await assert.rejects(
    server.get("/", { resolve: async () => Array<string>(33).fill("127.0.0.1") }),
    refused("forbidden", /more than 32/),
  );
  assert.equal(server.connections, 0);
});

test("a name is asked once, and the connection goes where the first answer led", async (t) => {
  const server = await rig(t);
  let asked = 0;
  const resolve = async () => (asked++ === 0 ? ["127.0.0.1"] : ["10.0.0.1"]);
  assert.equal((await server.get("/", { resolve })).status, 200);
  assert.equal(asked, 1);
  // idp.test is in no name server, so nobody but the guard can have led here.
  assert.equal(server.connections, 1);
});

test("an address where nobody listens is followed by the next", async (t) => {
  const server = await rig(t);
  assert.equal((await server.get("/", { resolve: async () => ["127.0.0.2", "127.0.0.1"] })).status, 200);
  await assert.rejects(
    server.get("/", { resolve: async () => ["127.0.0.2"] }),
    refused("network", /failed \(ECONNREFUSED\)/),
  );
});

test("redirects are answers that are not followed", async (t) => {
  const server = await rig(t);
  for (const status of [301, 302, 303, 304, 307, 308]) {
    server.answer = (_, response) => void response.writeHead(status, { location: `/again` }).end();
    await assert.rejects(server.get(), refused("redirects", /redirect/), String(status));
  }
  assert.equal(server.seen.length, 6);
});

test("too many bytes: announced, unannounced, compressed", async (t) => {
  const server = await rig(t);
  const large = Buffer.alloc(1001);
  server.answer = (_, response) => void response.writeHead(200, { "content-length": 1001 }).end(large);
  await assert.rejects(server.get(), refused("too_large", /larger than 1000/));
  server.answer = (_, response) => {
    response.write(large.subarray(0, 500));
    response.end(large.subarray(500));
  };
  await assert.rejects(server.get(), refused("too_large", /larger than 1000/));
  server.answer = (_, response) =>
    void response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync(Buffer.alloc(100_000)));
  await assert.rejects(server.get(), refused("protocol", /encodes/));
  server.answer = (_, response) => void response.writeHead(200, { "x-large": "x".repeat(20_000) }).end();
  await assert.rejects(server.get(), refused("protocol", /HPE_HEADER_OVERFLOW/));
  server.answer = (_, response) => void response.end(large.subarray(0, 1000));
  assert.equal((await server.get()).body.length, 1000);
});

test("silence and drips end at the deadline, wherever they come", async (t) => {
  const server = await rig(t, () => {});
  const late = refused("timeout", /in time/);
  await assert.rejects(server.get("/", { deadlineMs: 200 }), late);
  server.answer = (_, response) => {
    const timer = setInterval(() => response.write(" "), 20);
    response.on("close", () => clearInterval(timer));
  };
  await assert.rejects(server.get("/", { deadlineMs: 300 }), late);
  await assert.rejects(server.get("/", { deadlineMs: 100, resolve: () => new Promise(() => {}) }), late);
  const mute = await listen(
    t,
    createTcp(() => {}),
  );
  await assert.rejects(
    guardedGet(`https://idp.test:${mute}/`, { ...common(mute), deadlineMs: 200 }),
    late,
    "no TLS handshake",
  );
});

test("a connection that falls silent, and an answer that never comes behind others, end before the deadline", async (t) => {
  const server = await rig(t, (_, response) => void response.writeHead(200).write("half"));
  await assert.rejects(server.get("/", { idleMs: 100 }), refused("timeout", /says nothing for too long/));
  server.answer = (_, response) => {
    for (let count = 0; count < 9; count++) response.writeEarlyHints({ link: "</a>; rel=preload" });
  };
  await assert.rejects(server.get(), refused("protocol", /no answer but 1xx/));
  server.answer = (_, response) => {
    response.writeEarlyHints({ link: "</a>; rel=preload" });
    response.end("{}");
  };
  assert.equal((await server.get()).status, 200);
});

test("a caller who goes away ends it, before and after the answer began", async (t) => {
  const stop = new AbortController();
  const server = await rig(t, (_, response) => {
    response.writeHead(200).write("half");
    stop.abort();
  });
  await assert.rejects(server.get("/", { signal: stop.signal }), refused("aborted", /was stopped/));
  await assert.rejects(server.get("/", { signal: AbortSignal.abort() }), refused("aborted", /was stopped/));
  assert.equal(server.seen.length, 1);
});

test("networks that the operator refuses are refused, whatever else they are", async (t) => {
  const server = await rig(t);
  const refusedNetworks = ["127.0.0.0/30", "2606:4700::/32"];
  for (const address of ["127.0.0.1", "2606:4700::1111"])
    await assert.rejects(
      server.get("/", { refusedNetworks, resolve: async () => [address] }),
      (error) => error instanceof EgressError && error.rule === 4 && /operator refuses/.test(error.message),
    );
  assert.equal((await server.get("/", { refusedNetworks: ["127.0.0.8/30"] })).status, 200);
});

test("TLS: an authority of ours, the name in the certificate, whatever the environment says", async (t) => {
  const server = await rig(t);
  const { ca: _, ...withoutCa } = common(server.port);
  const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
  process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
  t.after(() => {
    if (before === undefined) delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
    else process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before;
  });
  await assert.rejects(guardedGet(`https://idp.test:${server.port}/`, withoutCa), refused("network", /failed/));
  const other = `other.test:${server.port}`;
  await assert.rejects(
    guardedGet(`https://${other}/`, { ...common(server.port), hosts: [other] }),
    refused("network", /ERR_TLS_CERT_ALTNAME_INVALID/),
  );
  const numeric = `127.0.0.1:${server.port}`;
  const answer = await guardedGet(`https://${numeric}/`, { ...common(server.port), hosts: [numeric] });
  assert.equal(answer.status, 200);
  assert.equal(server.seen.length, 1);
});

test("plain http: to loopback only, where it is allowed", async (t) => {
  const port = await listen(
    t,
    createPlain((_, response) => void response.end("plain")),
  );
  const options = { ...common(port), hosts: [`localhost:${port}`], resolve: async () => ["127.0.0.1"] };
  assert.equal((await guardedGet(`http://localhost:${port}/`, options)).body.toString(), "plain");
  const denied: readonly Partial<GuardOptions>[] = [
    { loopback: false },
    { loopback: false, privateNetworks: true },
    { resolve: async () => ["93.184.216.34"] },
    { privateNetworks: true, resolve: async () => ["10.0.0.1"] },
  ];
  for (const each of denied)
    await assert.rejects(guardedGet(`http://localhost:${port}/`, { ...options, ...each }), refused("forbidden", /./));
});

test("what does not speak HTTP, or stops in the middle, is no answer", async (t) => {
  const port = await listen(
    t,
    createTcp((socket) => void socket.on("error", () => {}).end("SSH-2.0-hello\r\n")),
  );
  const options = { ...common(port), hosts: [`localhost:${port}`], resolve: async () => ["127.0.0.1"] };
  await assert.rejects(guardedGet(`http://localhost:${port}/`, options), refused("protocol", /does not speak HTTP/));
  const server = await rig(t, (_, response) => {
    response.writeHead(200, { "content-length": 100 }).write("half", () => response.destroy());
  });
  await assert.rejects(server.get(), refused("network", /failed/));
  server.answer = (_, response) => void response.writeHead(101, { upgrade: "x", connection: "upgrade" }).end();
  await assert.rejects(server.get(), (error) => error instanceof EgressError);
});

test("the system's names: localhost, without a name server", async (t) => {
  const port = await listen(
    t,
    createPlain((_, response) => void response.end("ok")),
  );
  const { resolve: _, ...options } = common(port);
  const answer = await guardedGet(`http://localhost:${port}/`, { ...options, hosts: [`localhost:${port}`] });
  assert.equal(answer.body.toString(), "ok");
  await assert.rejects(
    guardedGet("https://no-such-name.invalid/", { ...options, hosts: ["no-such-name.invalid"] }),
    refused("forbidden", /nowhere/),
  );
});

/** Answers A and AAAA questions from a table; a family that is missing there has no address. Counts the questions. */
async function nameServer(
  t: TestContext,
  table: { a?: string; aaaa?: string },
): Promise<{ at: string; asked: number }> {
  const made = { at: "", asked: 0 };
  const socket = createSocket("udp4", (question, from) => {
    made.asked++;
    const end = question.indexOf(0, 12) + 5;
    const type = question.readUInt16BE(end - 4);
    const data =
      type === 1 && table.a !== undefined
        ? Buffer.from(table.a.split(".").map(Number))
        : type === 28 && table.aaaa !== undefined
          ? Buffer.from(table.aaaa.replaceAll(":", ""), "hex")
          : undefined;
    const head = Buffer.from(question.subarray(0, end));
    head.writeUInt16BE(0x8180, 2);
    head.writeUInt16BE(data === undefined ? 0 : 1, 6);
    head.fill(0, 8, 12);
    const fixed = Buffer.from([0xc0, 0x0c, 0, type, 0, 1, 0, 0, 0, 0, 0, data?.length ?? 0]);
    socket.send(data === undefined ? head : Buffer.concat([head, fixed, data]), from.port, from.address);
  });
  await new Promise<void>((done) => socket.bind(0, "127.0.0.1", done));
  t.after(() => socket.close());
  made.at = `127.0.0.1:${socket.address().port}`;
  return made;
}

test("name servers: both families are asked once each, and both are judged", async (t) => {
  const cases: readonly (readonly [{ a?: string; aaaa?: string }, string, RegExp])[] = [
    [{ a: "10.1.2.3" }, "forbidden", /private/],
    [{ aaaa: "fd000000000000000000000000000001" }, "forbidden", /private/],
    [{ a: "93.184.216.34", aaaa: "00000000000000000000000000000001" }, "forbidden", /loopback/],
    [{ a: "169.254.169.254", aaaa: "26064700470000000000000000001111" }, "forbidden", /link-local/],
    [{ a: "127.0.0.1" }, "forbidden", /loopback/],
    [{}, "network", /no address/],
  ];
  for (const [table, code, text] of cases) {
    const server = await nameServer(t, table);
    const options = { ...common(443), hosts: ["idp.example.net"], loopback: false, nameServers: [server.at] };
    const { resolve: _, ...asking } = options;
    await assert.rejects(guardedGet("https://idp.example.net/", asking), refused(code, text), JSON.stringify(table));
    assert.equal(server.asked, 2);
  }
});
