/**
 * A thousand slow strangers at the real server, plain and over TLS: what it holds for them is bounded, it serves others
 * meanwhile, and it lets them go.
 */
import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { connect as connectTls } from "node:tls";
import { authority } from "#test/fixtures/certificates.ts";
import { startServer, type TestServer, until } from "../harness.ts";

const STRANGERS = 1000;
/** Most that a head may be held of: 16 KiB; OpenSSL keeps some 40 KiB a connection. */
const MOST_BYTES = { plain: 40 * 1024, tls: 120 * 1024 };
/** As much of a head as is taken without complaint, and no end. */
const HEAD = `GET /v1/models HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(12_000)}`;

type How = "plain" | "tls";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "castellan-strangers-"));
  const { cert, key } = await (await authority()).issue();
  await writeFile(join(folder, "pair.pem"), cert + key, { mode: 0o600 });
});
after(() => rmSync(folder, { recursive: true, force: true }));

async function start(t: TestContext): Promise<TestServer> {
  const server = await startServer({
    waitReady: false,
    args: ["--ssl-certfile", join(folder, "pair.pem"), "--no-ops-ssl"],
  });
  t.after(() => server.stop());
  await until("it is ready", async () => (await health(server, "tls")) === 200);
  return server;
}

function health(server: TestServer, how: How): Promise<number> {
  if (how === "plain") return fetch(`${server.opsUrl}/health`).then(({ status }) => status);
  return new Promise((done) => {
    const options = { host: "127.0.0.1", port: server.port, path: "/health", rejectUnauthorized: false, agent: false };
    request(options, (res) => {
      res.resume();
      done(res.statusCode ?? 0);
    })
      .on("error", () => done(0))
      .end();
  });
}

/** Bytes of the HTTP process in memory. */
function resident(server: TestServer): number {
  const pages = readFileSync(`/proc/${server.child.pid}/statm`, "utf8").split(" ")[1];
  return Number(pages) * 4096;
}

async function stranger(server: TestServer, how: How): Promise<Socket> {
  const port = how === "tls" ? server.port : Number(new URL(server.opsUrl).port);
  const socket =
    how === "tls"
      ? connectTls({ host: "127.0.0.1", port, rejectUnauthorized: false })
      : connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  socket.resume();
  await new Promise<void>((done) => {
    socket.once("close", () => done());
    socket.write(HEAD, () => done());
  });
  return socket;
}

async function come(server: TestServer, how: How, count: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < count)
    sockets.push(...(await Promise.all(Array.from({ length: 50 }, () => stranger(server, how)))));
  return sockets;
}

// Side by side, a server each: most of the time is the server's patience.
describe("strangers", { concurrency: true }, () => {
  for (const how of ["plain", "tls"] as const)
    it(`${STRANGERS} strangers in the middle of a head, ${how}`, { timeout: 120_000 }, async (t) => {
      const server = await start(t);
      // What the first ones make the runtime load and grow is not theirs.
      for (const socket of await come(server, how, 200)) socket.destroy();
      await until("they are served meanwhile", async () => (await health(server, how)) === 200);
      const before = resident(server);
      const sockets = await come(server, how, STRANGERS);
      assert.equal(await health(server, how), 200);
      const each = (resident(server) - before) / STRANGERS;
      const open = sockets.filter(({ destroyed }) => !destroyed).length;
      assert.ok(open > STRANGERS / 2, `${open} are still there`);
      assert.ok(each <= MOST_BYTES[how], `${Math.round(each)} bytes for each`);
      await until("all are sent away", () => sockets.every(({ destroyed }) => destroyed), 60_000);
      assert.equal(await health(server, how), 200);
    });
});
