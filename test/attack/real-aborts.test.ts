/**
 * Ten thousand clients that hang up at random moments, against the real server: nothing of them stays.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { startServer, TEST_KEY, type TestServer, until } from "../harness.ts";

const ABORTS = 10_000;
/** After so many everything has reached the size that it keeps; growth is measured from there. */
const WARM_UP = 4000;
const AT_ONCE = 64;

let server: TestServer;
before(async () => {
  server = await startServer({
    // The heap may not grow beyond this: whoever keeps 20 KiB a request ends the process.
    env: { NODE_OPTIONS: "--max-old-space-size=240" },
    args: ["--enable-server-load-tracking", "--max-num-queued-reqs", "100000", "--disable-access-log"],
  });
});
after(() => server.stop());

function request(seed: number): string {
  const body = JSON.stringify({
    prompt: [5, 6, 7 + (seed % 50)],
    max_tokens: 64,
    ignore_eos: true,
    stream: seed % 3 !== 0,
    n: seed % 5 === 0 ? 2 : 1,
    seed,
  });
  return `POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TEST_KEY}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

/** Hangs up after the head, in the body, at once after it, at the first bytes of the answer, or a little later. */
function hangUp(seed: number): Promise<void> {
  return new Promise((done) => {
    const text = request(seed);
    const socket = connect(server.port, "127.0.0.1", () => {
      const kind = seed % 4;
      socket.write(kind === 0 ? text.slice(0, 40 + (seed % 200)) : text);
      if (kind < 2) setImmediate(() => socket.destroy());
    });
    let chunks = 0;
    socket.on("data", () => ++chunks > seed % 3 && socket.destroy());
    socket.on("error", () => {});
    socket.on("close", () => done());
  });
}

const metric = async (name: string): Promise<number> => {
  const text = await (await server.fetch("/metrics", { key: server.adminKey })).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, "m").exec(text)?.[1] ?? Number.NaN);
};
const openFiles = (): number => readdirSync(`/proc/${server.child.pid}/fd`).length;
const residentMiB = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

async function storm(from: number, to: number): Promise<void> {
  let next = from;
  const worker = async (): Promise<void> => {
    while (next < to) await hangUp(next++);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await until(
    "no sequence is left",
    async () => (await metric("vllm:num_requests_running")) === 0 && (await metric("vllm:num_requests_waiting")) === 0,
  );
}

test(`${ABORTS} aborted requests leave no sequence, socket or memory behind`, async () => {
  await storm(0, WARM_UP);
  const [engine = -1] = server.descendants();
  const before = { files: openFiles(), server: residentMiB(server.child.pid ?? -1), engine: residentMiB(engine) };
  await storm(WARM_UP, ABORTS);
  await until("sockets are closed", () => openFiles() <= before.files + 4);
  assert.equal(
    ((await (await server.fetch("/load", { key: server.adminKey })).json()) as { server_load: number }).server_load,
    0,
  );
  assert.equal(await metric("vllm:kv_cache_usage_perc"), 0);
  // What the heap's bound does not see: buffers and native memory.
  assert.ok(residentMiB(server.child.pid ?? -1) - before.server < 100, "the server's memory");
  assert.ok(residentMiB(engine) - before.engine < 60, "the engine's memory");
  assert.deepEqual(server.descendants()[0], engine, "the engine is the same process");
  const answer = await server.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ prompt: [5], max_tokens: 3 }),
  });
  assert.equal(answer.status, 200);
});
