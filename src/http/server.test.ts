import assert from "node:assert/strict";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AUTH, dial, exchange, message, rig, statusOf, until } from "#test/http/harness.ts";
import { events } from "./reply.ts";

const good = JSON.stringify({ messages: ["hi"] });
const CHAT = "POST /v1/chat";
const idle = { sockets: 0, calls: 0, handlers: 0, timers: 0 };

test("a Unix socket has its mode from the start; a stale one is replaced, a live one or a file is not", async (t) => {
  const { http } = await rig(t);
  const folder = mkdtempSync(join(tmpdir(), "castellan-uds-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "s");
  const umask = process.umask();
  await http.listen("public", { path });
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(process.umask(), umask);
  const group = join(folder, "g");
  await http.listen("ops", { path: group, mode: 0o660 });
  assert.equal(statSync(group).mode & 0o777, 0o660);
  const status = await new Promise((resolve, reject) => {
    httpRequest({ socketPath: path, path: "/health" }, (res) => {
      res.resume();
      resolve(res.statusCode);
    })
      .on("error", reject)
      .end();
  });
  assert.equal(status, 200);
  await assert.rejects(http.listen("public", { path }), /another server listens/);
  const file = join(folder, "f");
  writeFileSync(file, "");
  await assert.rejects(http.listen("public", { path: file }), /not a socket/);
  const stale = await leaveStale(join(folder, "old"));
  await http.listen("public", { path: stale });
  assert.equal(statSync(stale).mode & 0o777, 0o600);
  await http.close(0);
  assert.ok(!existsSync(path) && existsSync(file));
});

/** A socket file that nobody listens on: made elsewhere, then moved, so that its server does not remove it. */
async function leaveStale(path: string): Promise<string> {
  const server: Server = createServer();
  server.listen(`${path}.live`);
  await once(server, "listening");
  renameSync(`${path}.live`, path);
  server.close();
  await once(server, "close");
  chmodSync(path, 0o600);
  await assert.rejects(once(connect(path), "connect"), { code: "ECONNREFUSED" });
  return path;
}

test("an address in use is an error that says so", async (t) => {
  const { http, port } = await rig(t);
  await assert.rejects(http.listen("ops", { host: "127.0.0.1", port }), { code: "EADDRINUSE" });
});

test("a port that both say to share is shared, and one that only the second wants to share is not", async (t) => {
  const [first, second, alone] = [await rig(t), await rig(t), await rig(t)];
  const address = await first.http.listen("public", { host: "127.0.0.1", port: 0, reusePort: true });
  assert.ok("port" in address);
  await second.http.listen("public", { host: "127.0.0.1", port: address.port, reusePort: true });
  const sockets = Array.from({ length: 64 }, () => dial(address.port));
  await until(() => first.http.counters().sockets + second.http.counters().sockets >= 64, "all are in");
  assert.ok(first.http.counters().sockets > 0 && second.http.counters().sockets > 0, "the kernel shares them out");
  for (const socket of sockets) socket.destroy();
  await assert.rejects(second.http.listen("public", { host: "127.0.0.1", port: alone.port, reusePort: true }), {
    code: "EADDRINUSE",
  });
});

test("draining: new calls get 503, open routes go on, running ones finish", async (t) => {
  let go = (): void => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const { http, port } = await rig(t, {
    chat: () =>
      events(
        (async function* () {
          yield "data: 1\n\n";
          await gate;
          yield "data: 2\n\n";
        })(),
      ),
  });
  const running = exchange(port, message(CHAT, [AUTH], good));
  await until(() => http.counters().handlers === 1, "the stream runs");
  http.beginDrain();
  const late = await exchange(port, message("GET /v1/models", [AUTH]).replace("Connection: close\r\n", ""));
  assert.equal(statusOf(late), 503);
  assert.match(late, /connection: close/i);
  assert.equal(statusOf(await exchange(port, message("GET /v1/models"))), 401);
  const health = await exchange(port, message("GET /health").replace("Connection: close\r\n", ""));
  assert.equal(statusOf(health), 200);
  const closing = http.close(60_000);
  go();
  assert.match(await running, /data: 2\n\n/);
  await closing;
  assert.deepEqual(http.counters(), idle);
  await assert.rejects(once(connect({ host: "127.0.0.1", port }), "connect"), { code: "ECONNREFUSED" });
});

test("what does not finish in the time of grace is told, then cut", async (t) => {
  const { http, port } = await rig(t, {
    chat: ({ signal, body }) =>
      body.messages[0] === "stream"
        ? events(
            (async function* () {
              yield "data: 1\n\n";
              await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
            })(),
          )
        : new Promise(() => {}),
  });
  const stream = exchange(port, message(CHAT, [AUTH], '{"messages":["stream"]}'));
  const deaf = exchange(port, message(CHAT, [AUTH], good));
  const open = dial(port);
  await until(() => http.counters().handlers === 2 && http.counters().sockets === 3, "both run");
  await Promise.all([http.close(10), http.close(10)]);
  assert.match(await stream, /data: 1\n\n[\s\S]*"kind":"draining"[\s\S]*\[DONE\]/);
  assert.equal(statusOf(await deaf), 503);
  await until(() => open.destroyed || open.readableEnded, "the idle connection closes");
  assert.deepEqual(http.counters(), { ...idle, handlers: 1 });
});
