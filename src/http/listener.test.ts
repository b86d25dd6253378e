import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { AUTH, closed, dial, exchange, KEY, message, rig, statusesOf, statusOf, until } from "#test/http/harness.ts";
import { events, json, stream } from "./reply.ts";

const good = JSON.stringify({ messages: ["hi"] });
const CHAT = "POST /v1/chat";
const idle = { sockets: 0, calls: 0, handlers: 0, timers: 0 };

test("no byte of a body is read before the key: the answer comes while none was sent", async (t) => {
  const { port, records, services } = await rig(t, { options: { lingerMs: 20 } });
  for (const bytes of ["", "x".repeat(50_000)]) {
    const answer = await exchange(
      port,
      `${CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90000\r\n\r\n${bytes}`,
    );
    assert.equal(statusOf(answer), 401);
    assert.match(answer, /www-authenticate: Bearer\r\n/i);
    assert.match(answer, /connection: close\r\n/i);
  }
  assert.deepEqual(
    records.map((record) => record.requestBytes),
    [0, 0],
  );
  assert.deepEqual(services.handled, []);
});

test("an announced length over the limit is refused unread, and 100-continue is not given", async (t) => {
  const { port, records } = await rig(t, { options: { lingerMs: 20 } });
  const answer = await exchange(
    port,
    `${CHAT} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n`,
  );
  assert.deepEqual(statusesOf(answer), [413]);
  assert.equal(records[0]?.requestBytes, 0);
});

test("413 comes while reading: of 100 MB in chunks about the limit is taken", async (t) => {
  const { http, port, records } = await rig(t, { options: { lingerMs: 50 } });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (data) => {
    answer += data.toString("latin1");
  });
  socket.write(
    `${CHAT} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`,
  );
  const piece = Buffer.from(`10000\r\n${"x".repeat(65536)}\r\n`);
  let sent = 0;
  const pump = (): void => {
    while (sent < 1600 && !socket.destroyed) {
      sent++;
      if (!socket.write(piece)) return void socket.once("drain", pump);
    }
  };
  pump();
  await closed(socket);
  assert.equal(statusOf(answer), 413);
  assert.match(answer, /larger than 100000 bytes/);
  assert.equal(records.length, 1);
  const read = records[0]?.requestBytes ?? 0;
  assert.ok(read > 100_000 && read < 400_000, `read ${read}`);
  assert.ok(socket.bytesWritten - socket.writableLength < 50_000_000, "most of it was never taken");
  await until(() => http.counters().sockets === 0, "the socket closes");
});

test("Expect: 100-continue is met after the key, other expectations are refused", async (t) => {
  const { port } = await rig(t);
  const head = (more: string): string =>
    `${CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${good.length}\r\n${more}\r\n\r\n`;
  assert.deepEqual(statusesOf(await exchange(port, head("Expect: 100-continue"))), [401]);
  const socket = dial(port);
  let answer = "";
  socket.on("data", (data) => {
    answer += data.toString("latin1");
  });
  socket.write(head(`${AUTH}\r\nExpect: 100-continue`));
  await until(() => answer.includes("100 Continue"), "the continue");
  socket.write(good);
  await closed(socket);
  assert.deepEqual(statusesOf(answer), [100, 200]);
  assert.deepEqual(statusesOf(await exchange(port, head(`${AUTH}\r\nExpect: coffee`))), [400]);
});

test("a body that comes too slowly, or stops, is a 408", async (t) => {
  const { http, port } = await rig(t, { options: { bodyTimeoutMs: 60, lingerMs: 10 } });
  const answer = await exchange(
    port,
    `${CHAT} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
  );
  assert.equal(statusOf(answer), 408);
  await until(() => http.counters().sockets === 0, "the socket closes");
  assert.deepEqual(http.counters(), idle);
});

test("headers that never end are a 408 by the listener", async (t) => {
  const { port } = await rig(t, { options: { headersTimeoutMs: 200 } });
  assert.equal(statusOf(await exchange(port, "GET /v1/models HTTP/1.1\r\nHost: x\r\n")), 408);
});

test("a client that goes away aborts its handler, before and within a stream", async (t) => {
  const seen: unknown[] = [];
  const stop = (signal: AbortSignal) =>
    new Promise<never>((_, reject) =>
      signal.addEventListener("abort", () => {
        seen.push(signal.reason.kind);
        reject(new Error("stop"));
      }),
    );
  let stream = false;
  const { http, port, records, logged } = await rig(t, {
    chat: ({ signal }) =>
      stream
        ? events(
            (async function* () {
              yield "data: 1\n\n";
              await stop(signal);
            })(),
          )
        : stop(signal),
  });
  for (stream of [false, true]) {
    const socket = dial(port);
    socket.write(message(CHAT, [AUTH], good));
    await until(() => http.counters().handlers === 1, "the handler runs");
    if (stream) await once(socket, "data");
    socket.destroy();
    await until(() => http.counters().sockets === 0 && http.counters().handlers === 0, "all is over");
  }
  assert.deepEqual(seen, ["cancelled", "cancelled"]);
  assert.deepEqual(
    records.map(({ status, fault }) => [status, fault]),
    [
      [499, "cancelled"],
      [200, "cancelled"],
    ],
  );
  assert.ok(logged.every(({ level }) => level !== "error"));
  assert.deepEqual(http.counters(), idle);
});

test("a slow reader holds the source back, and is cut when it stalls", async (t) => {
  let pulled = 0;
  let closed = false;
  const frame = `data: ${"x".repeat(65536)}\n\n`;
  const { http, port, records } = await rig(t, {
    options: { stallTimeoutMs: 300 },
    chat: () =>
      events(
        (async function* () {
          try {
            for (; pulled < 2000; ) {
              pulled++;
              yield frame;
            }
          } finally {
            closed = true;
          }
        })(),
      ),
  });
  const socket = dial(port);
  socket.pause();
  socket.write(message(CHAT, [AUTH], good));
  await until(() => closed, "the stalled client is cut");
  // What is pulled fits the kernel's socket buffers and one high-water mark; 64 MB would say that nothing waits.
  assert.ok(pulled < 1000, `pulled ${pulled}`);
  assert.equal(records[0]?.fault, "cancelled");
  await until(() => http.counters().sockets === 0, "the socket closes");
  assert.deepEqual(http.counters(), idle);
  socket.destroy();
});

test("a large answer reaches a slow reader whole", async (t) => {
  const text = "y".repeat(5_000_000);
  const { port } = await rig(t, { chat: () => json({ text }) });
  const socket = dial(port);
  let size = 0;
  socket.write(message(CHAT, [AUTH], good));
  socket.on("data", (data) => {
    size += data.length;
    socket.pause();
    setImmediate(() => socket.resume());
  });
  await closed(socket);
  assert.ok(size > text.length);
});

test("a content of known length is read at the reader's speed, whole or cut, and its source is closed", async (t) => {
  const PIECE = 65_536;
  const COUNT = 2000;
  let pulled = 0;
  let ends = 0;
  const { http, port, records } = await rig(t, {
    options: { stallTimeoutMs: 300 },
    chat: () =>
      stream(
        (async function* () {
          try {
            for (pulled = 0; pulled < COUNT; ) {
              pulled++;
              yield Buffer.alloc(PIECE, "x");
            }
          } finally {
            ends++;
          }
        })(),
        PIECE * COUNT,
      ),
  });
  const stalled = dial(port);
  stalled.pause();
  stalled.write(message(CHAT, [AUTH], good));
  await until(() => ends === 1, "who reads nothing is cut");
  // What fits the kernel's socket buffers and one high-water mark; 131 MB would say that nothing waits.
  assert.ok(pulled < COUNT / 2, `pulled ${pulled}`);
  assert.equal(records[0]?.fault, "cancelled");
  stalled.destroy();
  const slow = dial(port);
  let size = 0;
  slow.write(message(CHAT, [AUTH], good));
  slow.on("data", (data) => {
    size += data.length;
    slow.pause();
    setImmediate(() => slow.resume());
  });
  await closed(slow);
  assert.ok(size > PIECE * COUNT && size < PIECE * COUNT + 1000, `${size} bytes with the head`);
  assert.equal(ends, 2);
  await until(() => http.counters().sockets === 0, "the sockets close");
  assert.deepEqual(http.counters(), idle);
});

test("silent streams carry comments when asked for", async (t) => {
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const { port } = await rig(t, {
    options: { sseKeepAliveMs: 20 },
    chat: () =>
      events(
        (async function* () {
          yield "data: 1\n\n";
          await gate;
          yield "data: 2\n\n";
        })(),
      ),
  });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (data) => {
    answer += data.toString();
  });
  socket.write(message(CHAT, [AUTH], good));
  await until(() => answer.includes(": keep-alive\n\n"), "a comment");
  go();
  await closed(socket);
  assert.match(answer, /data: 1\n\n[\s\S]*: keep-alive\n\n[\s\S]*data: 2\n\n/);
});

test("pipelined requests are answered one after the other, a flood of them is cut", async (t) => {
  let running = 0;
  let most = 0;
  const { http, port } = await rig(t, {
    chat: async ({ body }) => {
      most = Math.max(most, ++running);
      await new Promise(setImmediate);
      running--;
      return json(body);
    },
  });
  const one = message(CHAT, [AUTH], good).replace("Connection: close\r\n", "");
  assert.deepEqual(
    statusesOf(await exchange(port, one.repeat(5), message("GET /health"))),
    [200, 200, 200, 200, 200, 200],
  );
  assert.equal(most, 1);
  const head = "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
  await exchange(port, head.repeat(2000));
  await until(() => http.counters().sockets === 0, "the flood is cut");
  assert.deepEqual(http.counters(), idle);
});

test("limits of the head: size, count, Host", async (t) => {
  const { port, services } = await rig(t);
  const get = (headers: string[]): Promise<string> => exchange(port, message("GET /health", headers));
  assert.equal(statusOf(await get([`X: ${"x".repeat(17_000)}`])), 431);
  assert.equal(statusOf(await exchange(port, `GET /${"x".repeat(17_000)} HTTP/1.1\r\n\r\n`)), 431);
  assert.equal(statusOf(await get(Array.from({ length: 120 }, (_, i) => `X${i}: 1`))), 431);
  assert.equal(statusOf(await get(Array.from({ length: 90 }, (_, i) => `X${i}: 1`))), 200);
  assert.equal(statusOf(await get(["Host: y"])), 400);
  assert.equal(statusOf(await exchange(port, "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")), 400);
  assert.equal(statusOf(await exchange(port, "GET /health HTTP/1.0\r\n\r\n")), 200);
  assert.deepEqual(services.handled, ["health", "health"]);
  const answer = await exchange(port, "BROKEN REQUEST LINE\r\n\r\n");
  assert.deepEqual(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n"))), {
    error: { message: "The request is not valid HTTP/1.1.", type: "Bad Request", param: null, code: 400 },
  });
});

test("upgrades are plain requests, the last on their connection; CONNECT is refused", async (t) => {
  const { port } = await rig(t);
  const send = (start: string, more: string[], rest: string): Promise<string> =>
    exchange(
      port,
      [
        `${start} HTTP/1.1`,
        "Host: x",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AA",
        ...more,
        "",
        rest,
      ].join("\r\n"),
    );
  const next = message("GET /v1/models", [AUTH]);
  assert.deepEqual(statusesOf(await send("GET /v1/realtime", [], next)), [401]);
  assert.deepEqual(statusesOf(await send("GET /v1/realtime", [AUTH], next)), [404]);
  const body = ["Content-Type: application/json", `Content-Length: ${good.length}`, AUTH];
  assert.deepEqual(statusesOf(await send(CHAT, body, good + next)), [200]);
  assert.equal(statusOf(await exchange(port, "CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n")), 400);
});

test("keep-alive: one connection carries many calls", async (t) => {
  const { http, port } = await rig(t);
  const answer = await exchange(
    port,
    message("GET /v1/models", [AUTH]).replace("Connection: close\r\n", ""),
    message("GET /v1/models", [`authorization: bearer ${KEY}`]),
  );
  assert.deepEqual(statusesOf(answer), [200, 200]);
  await until(() => http.counters().sockets === 0, "the socket closes");
});
