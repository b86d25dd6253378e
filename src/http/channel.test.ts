/**
 * WebSockets at the listener: who gets one, what it costs who gets none, and how it ends. Frames by hand where a library
 * would not write them.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { WebSocket } from "ws";
import type { Channel } from "#base/channel.ts";
import { Fault } from "#core/fault.ts";
import {
  AUTH,
  closed,
  dial,
  exchange,
  message,
  type Rig,
  type RigOptions,
  ROUTES,
  reset,
  rig,
  type Services,
  until,
} from "#test/http/harness.ts";
import { key } from "./access.ts";
import type { Relay, RelayRequest } from "./relay.ts";
import { json } from "./reply.ts";
import { defineRoute } from "./route.ts";

const PATH = "/v1/stream";
const CHANNEL = defineRoute<Services>()({
  ...{ reply: [], audit: "none", doc: "" },
  method: "GET",
  path: PATH,
  dialect: ROUTES[0]?.dialect ?? assert.fail(),
  access: key("inference"),
  plane: "public",
  channel: true,
  limits: { timeoutMs: 60_000 },
  handler: () => json({ here: true }),
});

const KEY_LINE = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY_LINE];

async function echo(channel: Channel): Promise<void> {
  for (let text = await channel.receive(); text !== undefined; text = await channel.receive())
    await channel.send(`${text}!`);
}

interface Serving extends Rig {
  readonly asked: RelayRequest<Services>[];
}

async function serving(t: TestContext, serve = echo, more: RigOptions & { wants?: boolean } = {}): Promise<Serving> {
  const asked: RelayRequest<Services>[] = [];
  const relay: Relay<Services> = {
    wants: (route) => (more.wants ?? true) && route.path === PATH,
    answer: (request) => {
      asked.push(request);
      return { kind: "channel", messageBytes: 1000, serve };
    },
  };
  return { ...(await rig(t, { ...more, routes: [...ROUTES, CHANNEL], relay })), asked };
}

function client(port: number, headers: Readonly<Record<string, string>> = {}, protocols: string[] = []): WebSocket {
  const [name = "", value = ""] = AUTH.split(": ");
  const socket = new WebSocket(`ws://x${PATH}?model=a`, protocols, {
    createConnection: () => dial(port),
    headers: { [name]: value, ...headers },
  });
  socket.on("error", () => {});
  return socket;
}

const heads = (answer: string): number => answer.match(/HTTP\/1\.1 /g)?.length ?? 0;

test("a channel: text both ways, in order, and nothing is open when it is over", async (t) => {
  const { port, http, records } = await serving(t);
  const socket = client(port);
  await once(socket, "open");
  const heard: string[] = [];
  socket.on("message", (data) => heard.push(String(data)));
  for (let i = 0; i < 50; i++) socket.send(`ä${i}`);
  await until(() => heard.length === 50, "all echoes");
  assert.deepEqual(
    heard,
    Array.from({ length: 50 }, (_, i) => `ä${i}!`),
  );
  socket.close(1000);
  await once(socket, "close");
  await until(() => records.length === 1, "the record");
  const [record] = records;
  assert.deepEqual(
    { route: record?.route, status: record?.status, fault: record?.fault, in: record?.requestBytes },
    { route: PATH, status: 101, fault: undefined, in: 190 },
  );
  await until(() => Object.values(http.counters()).every((count) => count === 0), "nothing open");
});

test("the handshake's answer: the accepted key, no extension, the protocol that browsers have to offer", async (t) => {
  const { port } = await serving(t);
  const offers = ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: other, realtime"];
  const socket = dial(port);
  socket.write(`${message(`GET ${PATH}`, [...UPGRADE, AUTH, ...offers]).replace("Connection: close\r\n", "")}`);
  const [head] = (await once(socket, "data")) as [Buffer];
  const accept = createHash("sha1")
    .update("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
    .digest("base64");
  assert.equal(
    String(head),
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: realtime\r\n\r\n`,
  );
  socket.destroy();
});

test("who is refused is refused in HTTP, once, and what came behind is never read", async (t) => {
  const { port, asked } = await serving(t);
  const behind = `\x81\x05hello${message("GET /health")}`;
  const cases: readonly (readonly [string, readonly string[], number])[] = [
    [PATH, UPGRADE, 401],
    [PATH, [...UPGRADE, "Authorization: Bearer nobody"], 401],
    [PATH, [...UPGRADE, "Sec-WebSocket-Protocol: realtime, test-key"], 401],
    [PATH, [AUTH], 400],
    [PATH, [AUTH, ...UPGRADE.slice(0, 2), "Sec-WebSocket-Version: 8", KEY_LINE], 400],
    [PATH, [AUTH, ...UPGRADE.slice(0, 3), "Sec-WebSocket-Key: short"], 400],
    [PATH, [AUTH, ...UPGRADE.slice(0, 3)], 400],
    [PATH, [AUTH, "Connection: Upgrade", "Upgrade: h2c"], 400],
    ["/v1/models", [...UPGRADE, AUTH], 200],
    ["/v1/nothing", [...UPGRADE, AUTH], 404],
  ];
  for (const [path, headers, status] of cases) {
    const head = message(`GET ${path}`, headers).replace("Connection: close\r\n", "");
    const upgrade = headers.includes("Upgrade: websocket");
    const answer = await exchange(port, upgrade ? head + behind : message(`GET ${path}`, headers));
    assert.equal(Number(answer.slice(9, 12)), status, `${path} ${headers.join()} ${answer}`);
    assert.equal(heads(answer), 1);
    assert.match(answer, /connection: close/i);
    assert.doesNotMatch(answer, /sec-websocket-accept/i);
  }
  assert.ok(asked.length <= 5);
});

test("without anybody behind, the route's own handler answers, and no upgrade is taken", async (t) => {
  const { port } = await serving(t, echo, { wants: false });
  const answer = await exchange(port, message(`GET ${PATH}`, [...UPGRADE, AUTH]));
  assert.match(answer, /^HTTP\/1\.1 200 /);
  assert.match(answer, /\{"here":true\}/);
});

test("an upgrade behind a request that is not answered ends the connection; behind one that is, it is taken", async (t) => {
  let finish = (): void => {};
  const { port, services } = await serving(t, echo, {
    chat: () => new Promise((done) => (finish = () => done(json({})))),
  });
  const keep = (text: string): string => text.replace("Connection: close\r\n", "");
  const ask = keep(message("POST /v1/chat", [AUTH], '{"messages":[]}'));
  const both = dial(port);
  both.write(ask + keep(message(`GET ${PATH}`, [...UPGRADE, AUTH])));
  await closed(both);
  const one = dial(port);
  let text = "";
  one.setEncoding("latin1").on("data", (piece: string) => {
    text += piece;
  });
  one.write(ask);
  await until(() => services.handled.length === 2, "the request");
  finish();
  await until(() => text.includes("{}"), "its answer");
  one.write(keep(message(`GET ${PATH}`, [...UPGRADE, AUTH])));
  await until(() => text.includes("101 Switching"), "the upgrade");
  one.destroy();
});

test("frames that no client may send end the channel with the code for it", async (t) => {
  const { port, logged } = await serving(t);
  for (const [frame, code] of [
    // Not masked; a reserved bit; a control frame in two; text that is no UTF-8; binary; too large.
    [Buffer.from([0x81, 0x01, 0x61]), 1002],
    [Buffer.from([0xc1, 0x81, 0, 0, 0, 0, 0x61]), 1002],
    [Buffer.from([0x09, 0x80, 0, 0, 0, 0]), 1002],
    [Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0xff]), 1007],
    [Buffer.from([0x82, 0x81, 0, 0, 0, 0, 0x61]), 1003],
    [Buffer.from([0x81, 0xfe, 0x04, 0x00, 0, 0, 0, 0]), 1009],
    [Buffer.from([0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 1009],
  ] as const) {
    const head = message(`GET ${PATH}`, [...UPGRADE, AUTH]).replace("Connection: close\r\n", "");
    const answer = Buffer.from(await exchange(port, head, frame), "latin1");
    const at = answer.indexOf("\r\n\r\n") + 4;
    assert.equal(answer[at], 0x88, `${frame.toString("hex")}: ${answer.subarray(at).toString("hex")}`);
    assert.equal(answer.readUInt16BE(at + 2), code, frame.toString("hex"));
  }
  assert.deepEqual(
    logged.filter(({ level }) => level === "error"),
    [],
  );
});

test("a message in many pieces is bounded as one", async (t) => {
  const { port } = await serving(t);
  const socket = client(port);
  await once(socket, "open");
  const ended = once(socket, "close") as Promise<[number]>;
  for (let i = 0; i < 11; i++) socket.send("x".repeat(100), { fin: false });
  assert.equal((await ended)[0], 1009);
});

test("what ends the service ends the channel: a fault is told by code and words, the server's end as going away", async (t) => {
  const failing = await serving(t, async (channel) => {
    await channel.receive();
    throw new Fault("rate_limited", "Enough for today.");
  });
  const socket = client(failing.port);
  await once(socket, "open");
  socket.send("x");
  const [code, reason] = (await once(socket, "close")) as [number, Buffer];
  assert.deepEqual([code, String(reason)], [1008, "Enough for today."]);
  await until(() => failing.records[0]?.fault === "rate_limited", "the record");
  const living = await serving(t);
  const second = client(living.port);
  await once(second, "open");
  const ended = once(second, "close") as Promise<[number]>;
  await living.http.close(0);
  assert.equal((await ended)[0], 1001);
});

test("a client that breaks off ends the service", async (t) => {
  let over = 0;
  const { port, http } = await serving(t, async (channel) => {
    await echo(channel);
    over++;
  });
  for (let i = 0; i < 20; i++) {
    const socket = dial(port);
    socket.write(message(`GET ${PATH}`, [...UPGRADE, AUTH]).replace("Connection: close\r\n", ""));
    if (i % 2 === 0) await once(socket, "data");
    if (i % 4 < 2) reset(socket);
    else socket.destroy();
  }
  await until(() => Object.values(http.counters()).every((count) => count === 0), "nothing open");
  assert.ok(over >= 10, String(over));
});

test("who takes nothing is not written to, and is cut", async (t) => {
  let sent = 0;
  const { port, records } = await serving(
    t,
    async (channel) => {
      let open = true;
      void channel.ended.then(() => {
        open = false;
      });
      for (; open; sent++) {
        await channel.send("x".repeat(100_000));
        await new Promise(setImmediate);
      }
    },
    { options: { stallTimeoutMs: 300 } },
  );
  const socket = dial(port);
  socket.pause();
  socket.write(message(`GET ${PATH}`, [...UPGRADE, AUTH]).replace("Connection: close\r\n", ""));
  await until(() => records.length === 1, "the end");
  assert.ok(sent < 200, `${sent} messages to who reads none`);
  socket.destroy();
});
