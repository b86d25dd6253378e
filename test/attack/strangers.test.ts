/**
 * What somebody without a key can make the server send, hold and wait for: bounded for every kind of stranger.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { type TestContext, test } from "node:test";
import type { Dialect } from "#core/dialect.ts";
import { AUTH, closed, dial, message, rig, speaksTls, statusesOf, until } from "#test/http/harness.ts";
import { openai } from "#wire/openai/dialect.ts";

/** Bytes that the server may send for one that it gets. */
const MOST = 60;

/** A wire that counts what goes over it. */
async function countingWire(t: TestContext, port: number) {
  const bytes = { there: 0, back: 0 };
  const relay = createServer((near) => {
    const far = connect({ host: "127.0.0.1", port });
    near.on("data", (data) => {
      bytes.there += data.length;
    });
    far.on("data", (data) => {
      bytes.back += data.length;
    });
    near.pipe(far).pipe(near);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  t.after(() => relay.close());
  return { port: (relay.address() as AddressInfo).port, bytes };
}

const GET = "GET / HTTP/1.1\r\nHost:\r\n\r\n";
const chunked =
  "POST /v1/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

const STRANGERS: Readonly<Record<string, string>> = {
  "a bare request": GET,
  "a bare request of HTTP/1.0": "GET / HTTP/1.0\r\n\r\n",
  "a request without Host": "GET / HTTP/1.1\r\n\r\n",
  "a wrong key": message("GET /v1/models", ["Authorization: Bearer cst_wrong"]),
  HEAD: "HEAD / HTTP/1.1\r\nHost:\r\n\r\n",
  OPTIONS: "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
  "sixteen at once": GET.repeat(16),
  "a hundred at once": GET.repeat(100),
  "a long target": `GET /${"x".repeat(15_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
  "too long a target": `GET /${"x".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
  "many headers": message(
    "GET /",
    Array.from({ length: 200 }, (_, i) => `x${i}: y`),
  ),
  "a body that is announced": "POST /v1/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
  "a body that is expected": "POST /v1/chat HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n",
  "tiny chunks": chunked + "1\r\nx\r\n".repeat(20_000),
  "chunk extensions": `${chunked}1;${"x".repeat(100_000)}\r\nx\r\n`,
  "no HTTP": "\r\n",
  "one byte": "G",
  silence: "",
  garbage: "\u0000\u0001\u0002",
  liveness: "GET /health HTTP/1.1\r\nHost:\r\n\r\n",
};

for (const [name, bytes] of Object.entries(STRANGERS)) {
  test(`${name}: the answer is short, and at most ${MOST} bytes go out for one that came in`, async (t) => {
    const { port, services } = await rig(t, {
      dialect: openai as Dialect,
      options: { headersTimeoutMs: 200, keepAliveTimeoutMs: 50, lingerMs: 50 },
    });
    const wire = await countingWire(t, port);
    const socket = dial(wire.port, speaksTls());
    socket.resume();
    socket.write(Buffer.from(bytes, "latin1"));
    await closed(socket);
    const { there, back } = wire.bytes;
    assert.ok(back <= MOST * there, `${back} bytes for ${there}`);
    // Of what was sent only the head was looked at.
    assert.ok(back <= 20_000, `${back} bytes`);
    assert.deepEqual(services.handled, name === "liveness" ? ["health"] : []);
  });
}

test("whoever drips ends in time: in the handshake, in the head, before the first byte", async (t) => {
  const { http, port } = await rig(t, { options: { headersTimeoutMs: 400, handshakeTimeoutMs: 400 } });
  const drips = {
    // The beginning of a ClientHello, or of a request.
    wire: {
      socket: connect({ host: "127.0.0.1", port }),
      text: speaksTls() ? "\u0016\u0003\u0001\u0002\u0000\u0001" : GET,
    },
    head: { socket: dial(port), text: "GET / HTTP/1.1\r\nHost: x\r\nX: " },
    silent: { socket: dial(port), text: "" },
  };
  await Promise.all(
    Object.values(drips).map(async ({ socket, text }) => {
      socket.on("error", () => {});
      socket.resume();
      let at = 0;
      const drip = setInterval(() => {
        if (socket.writable && text !== "") socket.write(Buffer.from(text[at++] ?? "x", "latin1"));
      }, 30);
      await closed(socket);
      clearInterval(drip);
    }),
  );
  await until(() => http.counters().sockets === 0, "all are gone");
});

test("a body that drips ends in time, whatever each byte takes", async (t) => {
  const { http, port, records } = await rig(t, { options: { bodyTimeoutMs: 300, lingerMs: 50 } });
  const socket = dial(port);
  let answer = "";
  socket.on("data", (data) => {
    answer += data.toString("latin1");
  });
  socket.write(
    message("POST /v1/chat", [AUTH], "").replace(
      "\r\n\r\n",
      "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
  );
  const drip = setInterval(() => socket.writable && socket.write("1\r\n \r\n"), 20);
  await closed(socket);
  clearInterval(drip);
  assert.deepEqual(statusesOf(answer), [408]);
  assert.equal(records.length, 1);
  await until(() => http.counters().sockets === 0, "it is gone");
});

test("a stranger's body is not taken in: of a hundred megabytes in tiny chunks next to nothing is read", async (t) => {
  const { port, records } = await rig(t, { options: { lingerMs: 100 } });
  const socket = dial(port);
  socket.resume();
  socket.write(chunked);
  const piece = Buffer.from("1\r\nx\r\n".repeat(10_000));
  let sent = 0;
  const pump = (): void => {
    while (sent < 1700 && !socket.destroyed) {
      sent++;
      if (!socket.write(piece)) return void socket.once("drain", pump);
    }
  };
  pump();
  await closed(socket);
  assert.equal(records[0]?.status, 401);
  assert.equal(records[0]?.requestBytes, 0);
  assert.ok(sent < 850, `${sent} pieces were taken`);
});
