import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { giveBack } from "#base/give-back.ts";
import { Secret } from "#base/secret.ts";
import { Fault } from "#core/fault.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import { authority } from "#test/fixtures/certificates.ts";
import {
  type Act,
  answer,
  chunk,
  close,
  type FaultServer,
  type FaultServerOptions,
  faultServer,
  LAST_CHUNK,
  nothing,
  reset,
  STREAM_HEAD,
  type Turn,
  whole,
} from "#test/fixtures/fault-server.ts";
import { until } from "#test/harness.ts";
import { UpstreamClient, type UpstreamClientOptions } from "./client.ts";
import type { UpstreamCredentials } from "./dial.ts";
import type { SendOptions, UpstreamReply } from "./exchange.ts";
import { UpstreamFault } from "./fault.ts";
import { mayDial } from "./reach.ts";

const TIMEOUTS = { firstByteMs: 20_000, idleMs: 20_000, totalMs: 60_000 };
const GET: UpstreamRequest = { method: "GET", target: "/v1/models", headers: [], body: [] };

function post(...pieces: readonly string[]): UpstreamRequest {
  const body = pieces.map((piece) => Buffer.from(piece));
  return { method: "POST", target: "/v1/chat/completions", headers: ["content-type", "application/json"], body };
}

async function server(t: TestContext, act: Act, options: FaultServerOptions = {}): Promise<FaultServer> {
  const made = await faultServer(act, options);
  t.after(() => made.close());
  return made;
}

function client(t: TestContext, origin: string, options: Partial<UpstreamClientOptions> = {}): UpstreamClient {
  const made = new UpstreamClient({ origin, connections: 4, connectMs: 5000, ...options });
  t.after(() => made.destroy());
  return made;
}

/** The whole story of a call: the head, what was pushed, how it ended, what `ended` was told. */
interface Told {
  status?: number;
  headers?: Readonly<Record<string, string>>;
  body: string;
  end: string;
  ended: string[];
}

async function told(upstream: UpstreamClient, request: UpstreamRequest, options: Partial<SendOptions> = {}) {
  const ended: string[] = [];
  const seen: Told = { body: "", end: "none", ended };
  const send = { timeouts: TIMEOUTS, ended: (outcome: string) => void ended.push(outcome), ...options };
  let reply: UpstreamReply;
  try {
    reply = await upstream.send(request, send);
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    assert.doesNotMatch(error.message, /127\.0\.0\.1|localhost|ECONN|UND_ERR/);
    return { ...seen, end: error instanceof UpstreamFault ? error.reason : error.kind };
  }
  seen.status = reply.status;
  seen.headers = reply.headers;
  await new Promise<void>((done) => {
    const over = (end: string): void => {
      assert.equal(seen.end, "none", "one end only");
      seen.end = end;
      done();
    };
    reply.source.pipe({
      write: (bytes) => {
        seen.body += Buffer.from(bytes).toString("latin1");
        return true;
      },
      end: () => over("end"),
      fail: (fault) => over(fault instanceof UpstreamFault ? fault.reason : fault.kind),
    });
  });
  return seen;
}

test("a request arrives as it was meant, and its answer's head is rebuilt", async (t) => {
  const headers = ["server: uvicorn", "set-cookie: a=b", "location: /x", "x-secret: 1", "metadata: {}", "Via: 1.1 a"];
  const there = await server(t, answer(whole('{"ok":true}', "200 OK", headers)));
  const upstream = client(t, there.origin, { credentials: () => ({ key: new Secret("k-1") }) });
  const seen = await told(upstream, post('{"a":', "1}"));
  assert.deepEqual(seen, {
    status: 200,
    headers: { "content-type": "application/json", "content-length": "11", metadata: "{}" },
    body: '{"ok":true}',
    end: "end",
    ended: ["whole"],
  });
  const [turn] = there.requests;
  assert.equal(
    turn?.head,
    [
      "POST /v1/chat/completions HTTP/1.1",
      `host: 127.0.0.1:${there.port}`,
      "connection: keep-alive",
      "accept-encoding: identity",
      "content-type: application/json",
      "authorization: Bearer k-1",
      "content-length: 7",
      "\r\n",
    ].join("\r\n"),
  );
  assert.equal(turn?.body.toString(), '{"a":1}');
});

test("a long body in pieces goes out with its length, not in chunks", async (t) => {
  const there = await server(t, answer(whole("{}")));
  const pieces = ["a".repeat(70_000), "", "b".repeat(300_000)];
  const seen = await told(client(t, there.origin), post(...pieces));
  assert.equal(seen.end, "end");
  assert.match(there.requests[0]?.head ?? "", /\r\ncontent-length: 370000\r\n/);
  assert.doesNotMatch(there.requests[0]?.head ?? "", /transfer-encoding/i);
  assert.equal(there.requests[0]?.body.toString(), pieces.join(""));
});

test("connections are kept and never shared by two at once", async (t) => {
  const there = await server(t, answer(whole("{}")));
  const upstream = client(t, there.origin, { connections: 16 });
  await told(upstream, GET);
  // A connection is free again when the event loop has gone round.
  await new Promise(setImmediate);
  await told(upstream, GET);
  assert.equal(there.connections(), 1);
  there.act(nothing);
  const stop = new AbortController();
  const all = Array.from({ length: 16 }, () => told(upstream, GET, { signal: stop.signal }));
  while (there.requests.length < 18) await new Promise((done) => setTimeout(done, 5));
  assert.equal(there.sockets.size, 16);
  stop.abort();
  assert.deepEqual(new Set((await Promise.all(all)).map(({ end }) => end)), new Set(["cancelled"]));
});

/** name → what the upstream does, how the call ends, and what of the body comes before. */
const FAULTS: Readonly<Record<string, readonly [act: Act, end: string, body?: string]>> = {
  "reset before the head": [reset(), "reset"],
  "reset in the head": [reset("HTTP/1.1 200 OK\r\nconte"), "reset"],
  "reset after the head": [reset(`${STREAM_HEAD}${chunk("data: 1\n\n")}`), "reset", "data: 1\n\n"],
  "closed before the head": [close(), "reset"],
  "closed in a stream": [close(`${STREAM_HEAD}${chunk("data: 1\n\n")}`), "reset", "data: 1\n\n"],
  "closed in a chunk": [close(`${STREAM_HEAD}10\r\ndata`), "reset", "data"],
  "a body shorter than its length": [close("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort"), "reset", "short"],
  garbage: [answer("\u0016\u0003\u0001 what?\r\n\r\n"), "protocol"],
  "an older protocol's answer": [close("<html>no head</html>"), "protocol"],
  "a chunk of no length": [answer(`${STREAM_HEAD}xyz\r\ndata\r\n`), "protocol", ""],
  "a chunk that is longer than it says": [answer(`${STREAM_HEAD}2\r\ntoo long\r\n`), "protocol", "to"],
  "two lengths": [answer("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), "protocol"],
  "a length and chunks": [
    answer(`HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n${chunk("a")}${LAST_CHUNK}`),
    "protocol",
  ],
  "a negative length": [answer("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"), "protocol"],
  "another coding": [answer(whole("{}", "200 OK", ["content-encoding: gzip"])), "protocol"],
  "chunks within another coding": [
    answer(`HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n${LAST_CHUNK}`),
    "protocol",
  ],
  "no way to know the end": [close("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}"), "protocol"],
  "huge headers": [answer(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(100_000)}\r\n\r\n`), "protocol"],
  "a head line broken by a bare line feed": [answer("HTTP/1.1 200 OK\ncontent-length: 0\n\n"), "protocol"],
  "a type sent twice": [answer(whole("{}", "200 OK", ["content-type: text/html"])), "protocol"],
  "a redirect": [answer(whole("", "307 Temporary Redirect", ["location: http://169.254.169.254/"])), "redirect"],
  "not modified": [answer("HTTP/1.1 304 Not Modified\r\n\r\n"), "redirect"],
  "another protocol": [
    answer("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
    "protocol",
  ],
  "a status of no class": [answer(whole("{}", "799 Odd")), "protocol"],
};

for (const [name, [act, end, body = ""]] of Object.entries(FAULTS))
  test(`fault: ${name}`, async (t) => {
    const there = await server(t, act);
    const upstream = client(t, there.origin);
    const seen = await told(upstream, post("{}"));
    assert.deepEqual([seen.end, seen.body, seen.ended], [end, body, ["failed"]]);
    assert.equal(there.requests.length, 1, "asked once");
    // Nothing of it is left on a connection that is used again.
    there.act(answer(whole('{"fresh":1}')));
    assert.equal((await told(upstream, GET)).body, '{"fresh":1}');
    assert.equal(there.requests.length, 2);
  });

test("informational answers are not the answer", async (t) => {
  const hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(3);
  const there = await server(t, answer(`${hints}${whole("{}")}`));
  assert.deepEqual((await told(client(t, there.origin), GET)).end, "end");
});

test("a second answer for one request is nobody's", async (t) => {
  const there = await server(t, answer(`${whole("{}")}${whole('{"stolen":1}')}`));
  const upstream = client(t, there.origin);
  assert.equal((await told(upstream, GET)).body, "{}");
  there.act(answer(whole('{"mine":1}')));
  const bodies = [];
  for (let i = 0; i < 4; i++) bodies.push((await told(upstream, GET)).body);
  assert.ok(
    bodies.every((body) => body === '{"mine":1}' || body === ""),
    bodies.join(),
  );
  assert.ok(bodies.includes('{"mine":1}'));
});

test("timeouts: first byte, between bytes, all of it; endless hints do not help", async (t) => {
  const there = await server(t, nothing);
  const upstream = client(t, there.origin);
  const first = await told(upstream, GET, { timeouts: { ...TIMEOUTS, firstByteMs: 60 } });
  assert.deepEqual([first.end, first.ended], ["timeout", ["failed"]]);

  there.act(({ socket }) => {
    const timer = setInterval(() => socket.write("HTTP/1.1 103 Early Hints\r\n\r\n"), 5);
    socket.on("close", () => clearInterval(timer));
  });
  assert.equal((await told(upstream, GET, { timeouts: { ...TIMEOUTS, firstByteMs: 60 } })).end, "timeout");

  there.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  const idle = await told(upstream, GET, { timeouts: { ...TIMEOUTS, idleMs: 60 } });
  assert.deepEqual([idle.end, idle.body], ["timeout", "a"]);

  there.act(({ socket }) => {
    socket.write(STREAM_HEAD);
    const timer = setInterval(() => socket.write(chunk("a")), 5);
    socket.on("close", () => clearInterval(timer));
  });
  const total = await told(upstream, GET, { timeouts: { ...TIMEOUTS, totalMs: 100 } });
  assert.deepEqual([total.end, /^a+$/.test(total.body)], ["timeout", true]);
});

test("each has its own limits, whoever else waits on connections to the same place", async (t) => {
  const there = await server(t, nothing);
  const upstream = client(t, there.origin);
  const stop = new AbortController();
  const long = told(upstream, GET, { signal: stop.signal });
  await until("it arrived", () => there.requests.length === 1);
  assert.equal((await told(upstream, GET, { timeouts: { ...TIMEOUTS, firstByteMs: 60 } })).end, "timeout");
  there.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  assert.equal((await told(upstream, GET, { timeouts: { ...TIMEOUTS, idleMs: 60 } })).end, "timeout");
  assert.equal((await told(upstream, GET, { timeouts: { firstByteMs: 0, idleMs: 0, totalMs: 60 } })).end, "timeout");
  stop.abort();
  assert.equal((await long).end, "cancelled", "nothing of theirs was its own");
});

test("who leaves takes the connection along, before and after the head", async (t) => {
  const there = await server(t, nothing);
  const upstream = client(t, there.origin);
  const early = new AbortController();
  const waiting = told(upstream, GET, { signal: early.signal });
  while (there.sockets.size === 0 || there.requests.length === 0) await new Promise((done) => setTimeout(done, 5));
  early.abort();
  assert.equal((await waiting).end, "cancelled");
  while (there.sockets.size > 0) await new Promise((done) => setTimeout(done, 5));

  there.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  const ended: string[] = [];
  const reply = await upstream.send(GET, { timeouts: TIMEOUTS, ended: (outcome) => void ended.push(outcome) });
  reply.source.pipe({ write: () => true, end: () => assert.fail(), fail: () => assert.fail() });
  reply.source.cancel();
  reply.source.cancel();
  while (there.sockets.size > 0) await new Promise((done) => setTimeout(done, 5));
  assert.deepEqual(ended, ["cancelled"]);

  const gone = AbortSignal.abort(new Fault("request_timeout", "late"));
  assert.equal((await told(upstream, GET, { signal: gone })).end, "request_timeout");
  assert.equal(there.requests.length, 2, "never asked");
});

test("a slow reader stops the upstream, and gets every byte in the end", async (t) => {
  const total = 8 << 20;
  let written = 0;
  const there = await server(t, ({ socket }) => {
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${total}\r\n\r\n`);
    const more = (): void => {
      while (written < total) {
        written += 65_536;
        if (!socket.write(Buffer.alloc(65_536, 97))) return void socket.once("drain", more);
      }
    };
    more();
  });
  const reply = await client(t, there.origin).send(GET, { timeouts: TIMEOUTS });
  let bytes = 0;
  const over = Promise.withResolvers<void>();
  let open = true;
  reply.source.pipe({
    write: (piece) => {
      assert.ok(open, "pushed although it was full");
      bytes += piece.byteLength;
      open = false;
      return false;
    },
    end: over.resolve,
    fail: over.reject,
  });
  await new Promise((done) => setTimeout(done, 100));
  assert.ok(written < total, "the upstream went on writing");
  const pump = setInterval(() => {
    open = true;
    reply.source.resume();
  }, 1);
  await over.promise.finally(() => clearInterval(pump));
  assert.equal(bytes, total);
});

test("an answer larger than it may be", async (t) => {
  const there = await server(t, answer(whole("x".repeat(100))));
  const upstream = client(t, there.origin);
  assert.equal((await told(upstream, GET, { maxBytes: 100 })).end, "end");
  assert.equal((await told(upstream, GET, { maxBytes: 99 })).end, "too_large");
  there.act(answer(`${STREAM_HEAD}${chunk("x".repeat(60))}${chunk("y".repeat(60))}${LAST_CHUNK}`));
  assert.equal((await told(upstream, GET, { maxBytes: 99 })).end, "too_large");
});

test("an answer that comes before the request has been taken", async (t) => {
  const there = await server(t, nothing);
  for (const socket of there.sockets) socket.pause();
  const early = await faultServer(nothing);
  t.after(() => early.close());
  const upstream = client(t, there.origin);
  there.act(answer(whole('{"late":1}', "413 Payload Too Large")));
  const seen = await told(upstream, post("a".repeat(3 << 20), "b"));
  assert.deepEqual([seen.status, seen.end], [413, "end"]);
});

test("when all is told to be over, nothing is written from the body any more, though it has not gone out", async (t) => {
  const body = Buffer.from(new Uint8Array(16 << 20).fill("a".charCodeAt(0)).buffer);
  const arrived: Buffer[] = [];
  const gate = Promise.withResolvers<void>();
  const there = createServer((socket) => {
    socket.on("error", () => {}).on("close", () => there.close());
    socket.once("data", () => {
      socket.pause();
      socket.write(whole("early", "413 Payload Too Large"));
      void gate.promise.then(() => socket.on("data", (bytes) => arrived.push(bytes)).resume());
    });
  });
  there.listen(0, "127.0.0.1");
  await once(there, "listening");
  const { port } = there.address() as AddressInfo;
  const taken: Buffer[] = [];
  const ended = (): void => {
    giveBack(body);
    // Whatever comes next to lie there.
    for (let i = 0; i < 4; i++) taken.push(Buffer.allocUnsafeSlow(16 << 20).fill("b"));
  };
  const request = { ...post(), body: [body] };
  const seen = await told(client(t, `http://127.0.0.1:${port}`), request, { ended });
  assert.deepEqual([seen.status, seen.end, body.length, taken.length], [413, "end", 0, 4]);
  gate.resolve();
  await once(there, "close");
  const all = Buffer.concat(arrived);
  assert.ok(all.length < 16 << 20, "the connection was cut");
  assert.equal(all.indexOf("b"), -1);
});

test("nobody there: unavailable, and nothing was sent", async (t) => {
  const there = await faultServer(nothing);
  await there.close();
  const upstream = client(t, there.origin);
  await assert.rejects(
    upstream.send(GET, { timeouts: TIMEOUTS }),
    (error) =>
      error instanceof UpstreamFault &&
      error.reason === "connect" &&
      !error.sent &&
      error.kind === "upstream_unavailable",
  );
});

test("over a Unix socket", async (t) => {
  const path = join(tmpdir(), `castellan-${randomUUID()}.sock`);
  const there = await server(t, answer(whole("{}")), { path });
  assert.equal((await told(client(t, "http://localhost", { socketPath: path }), GET)).end, "end");
  assert.match(there.requests[0]?.head ?? "", /\r\nhost: localhost\r\n/);
});

test("TLS: own authority, own certificate, the name that was meant; none of it by accident", async (t) => {
  const [ca, other] = [await authority(), await authority("CN=Other")];
  const own = await ca.issue({ subject: "CN=vllm", names: ["dns:vllm.internal"] });
  const mine = await ca.issue({ subject: "CN=gateway", usage: ["1.3.6.1.5.5.7.3.2"] });
  const tls = { cert: own.cert, key: own.key, ca: ca.cert, requestCert: true, rejectUnauthorized: true };
  const there = await server(t, answer(whole("{}")), { tls });
  const shown = { certificate: mine.cert, key: new Secret(mine.key) };
  const end = async (given: UpstreamCredentials["tls"]): Promise<string> =>
    (await told(client(t, there.origin, { credentials: () => (given === undefined ? {} : { tls: given }) }), GET)).end;
  assert.equal(await end({ ca: ca.cert, ...shown, serverName: "vllm.internal" }), "end");
  assert.equal(await end({ ca: ca.cert, ...shown, serverName: "other.internal" }), "connect");
  assert.equal(await end({ ca: other.cert, ...shown, serverName: "vllm.internal" }), "connect");
  assert.equal(await end({ ca: ca.cert, ...shown }), "connect");
  assert.notEqual(await end({ ca: ca.cert, serverName: "vllm.internal" }), "end");
  assert.notEqual(await end(undefined), "end");
  assert.equal(there.requests.length, 1);
});

test("other credentials: a key goes out with the next request, TLS with the next connection; what runs goes on", async (t) => {
  const [ca, other] = [await authority(), await authority("CN=Other")];
  const own = await ca.issue({ subject: "CN=vllm" });
  const held: Turn[] = [];
  const there = await server(t, (turn) => void held.push(turn), { tls: { cert: own.cert, key: own.key } });
  const key = (text: string) => ({ key: new Secret(text) });
  let shown: UpstreamCredentials = { ...key("k-1"), tls: { ca: ca.cert } };
  const upstream = client(t, there.origin, { credentials: () => shown });
  const running = told(upstream, GET);
  await until("it arrived", () => held.length === 1);
  shown = { ...shown, ...key("k-2") };
  const next = told(upstream, GET);
  await until("it arrived", () => held.length === 2);
  shown = { ...shown, tls: { ca: other.cert } };
  assert.equal((await told(upstream, GET)).end, "connect", "nobody is believed by the new authority");
  shown = { ...shown, tls: { ca: `${other.cert}\n${ca.cert}` } };
  const last = told(upstream, GET);
  await until("it arrived", () => held.length === 3);
  for (const { socket } of held) socket.write(whole("{}"));
  for (const each of [running, next, last]) assert.equal((await each).end, "end");
  assert.deepEqual(
    held.map(({ head }) => /authorization: (.*)\r\n/.exec(head)?.[1]),
    ["Bearer k-1", "Bearer k-2", "Bearer k-2"],
  );
  assert.equal(there.connections(), 3);
  await until("they are closed", () => there.sockets.size === 1);
  await upstream.close();
  await until("they are closed", () => there.sockets.size === 0);
});

test("addresses that no upstream has: refused where the connection arrived", async (t) => {
  const there = await server(t, answer(whole("{}")));
  const mapped = client(t, `http://[::ffff:127.0.0.1]:${there.port}`);
  assert.equal((await told(mapped, GET)).end, "connect");
  assert.equal(there.requests.length, 0);
  const elsewhere = client(t, "http://vllm.invalid:9", { address: "127.0.0.1" });
  assert.equal((await told(elsewhere, GET)).end, "connect");
  const here = client(t, `http://vllm.invalid:${there.port}`, { address: "127.0.0.1" });
  assert.equal((await told(here, GET)).end, "end");
  assert.match(there.requests[0]?.head ?? "", /\r\nhost: vllm\.invalid:/);
  const plain = { secure: false, plainAnywhere: false };
  for (const [kind, may] of [
    ["loopback", true],
    ["private", true],
    ["public", false],
    ["metadata", false],
    ["link-local", false],
    ["embedded", false],
  ] as const)
    assert.equal(mayDial(kind, plain), may, kind);
  assert.ok(mayDial("public", { ...plain, secure: true }) && mayDial("public", { ...plain, plainAnywhere: true }));
  assert.ok(!mayDial("metadata", { secure: true, plainAnywhere: true }));
});

test("what would be two requests to another reader is none", async (t) => {
  const there = await server(t, answer(whole("{}")));
  const upstream = client(t, there.origin);
  const bad: readonly Partial<UpstreamRequest>[] = [
    { method: "CONNECT" },
    { method: "GET / HTTP/1.1\r\nx: y\r\n\r\nGET" },
    { target: "/a b" },
    { target: "//evil/x" },
    { target: "http://evil/" },
    { target: "/a\r\nx: y" },
    { target: "/a#b" },
    { target: "/é" },
    { target: `/${"a".repeat(9000)}` },
    { headers: ["host", "evil"] },
    { headers: ["content-length", "0"] },
    { headers: ["transfer-encoding", "chunked"] },
    { headers: ["connection", "close"] },
    { headers: ["authorization", "Bearer theirs"] },
    { headers: ["cookie", "a=b"] },
    { headers: ["x-data-parallel-rank", "1"] },
    { headers: ["Accept", "a"] },
    { headers: ["accept", "a\r\nx: y"] },
    { headers: ["accept", "a", "accept", "b"] },
    { headers: ["accept"] },
  ];
  for (const change of bad)
    assert.throws(
      () => void upstream.send({ ...GET, ...change }, { timeouts: TIMEOUTS }),
      /upstream/,
      JSON.stringify(change),
    );
  assert.equal(there.connections(), 0);
  const odd = ["user-agent", "accept", "accept", "user-agent"];
  assert.equal((await told(upstream, { ...GET, headers: odd })).end, "end", "a value may look like a name");
});

test("a signal after the head: whoever pipes is told once, whether before or after", async (t) => {
  const there = await server(t, answer(`${STREAM_HEAD}${chunk("a")}`));
  const upstream = client(t, there.origin);
  for (const pipedFirst of [true, false]) {
    const stop = new AbortController();
    const ended: string[] = [];
    const reply = await upstream.send(GET, {
      timeouts: TIMEOUTS,
      signal: stop.signal,
      ended: (outcome) => void ended.push(outcome),
    });
    const kinds: string[] = [];
    const target = { write: () => true, end: () => assert.fail(), fail: ({ kind }: Fault) => void kinds.push(kind) };
    if (pipedFirst) reply.source.pipe(target);
    stop.abort(new Fault("request_timeout", "late"));
    if (!pipedFirst) reply.source.pipe(target);
    reply.source.resume();
    reply.source.cancel();
    assert.deepEqual([kinds, ended], [["request_timeout"], ["cancelled"]]);
  }
});

test("a listener in place of a signal: the last counts, and nothing is told twice", async (t) => {
  const there = await server(t, nothing);
  const upstream = client(t, there.origin);
  const listeners: ((reason: Fault) => void)[] = [];
  const onAbort = (run: (reason: Fault) => void): void => void listeners.push(run);
  const late = new Fault("request_timeout", "late");
  const early = told(upstream, GET, { onAbort });
  await until("it arrived", () => there.requests.length === 1);
  listeners[0]?.(late);
  listeners[0]?.(late);
  const seen = await early;
  assert.deepEqual([seen.end, seen.ended], ["request_timeout", ["cancelled"]]);
  await until("its connection is gone", () => there.sockets.size === 0);

  there.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  const open = told(upstream, GET, { onAbort });
  await until("it arrived", () => there.requests.length === 2);
  await new Promise(setImmediate);
  listeners[1]?.(late);
  assert.equal((await open).end, "request_timeout");

  there.act(answer(whole("{}")));
  assert.equal((await told(upstream, GET, { onAbort })).end, "end");
  // It stays, and is nothing to whoever has the connection now.
  const next = told(upstream, GET);
  listeners[2]?.(late);
  assert.equal((await next).end, "end");

  const gone = await told(upstream, GET, { onAbort: (run) => run(late) });
  assert.deepEqual([gone.end, there.requests.length], ["request_timeout", 4], "never asked");
});
