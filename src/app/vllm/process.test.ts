/**
 * With a real program that stands for vLLM: it starts a worker in its group, as vLLM does.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { createRedact } from "#base/redact.ts";
import { openStateDirectory } from "#policy/state.ts";
import { until } from "#test/harness.ts";
import { ManagedVllm } from "./process.ts";

const PROGRAM = `#!/bin/sh
cd "$1"
trap 'echo drained > drained; exit 0' TERM
sleep 600 &
echo $! > worker
echo $$ >> starts
echo "loading $1"
if [ -e die ]; then exit 3; fi
touch up
wait
`;

function fixture(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "castellan-vllm-"));
  const program = join(folder, "vllm");
  writeFileSync(program, PROGRAM);
  chmodSync(program, 0o755);
  const state = openStateDirectory(join(folder, "state"));
  const lines: string[] = [];
  const made: ManagedVllm[] = [];
  const make = (startTimeoutMs = 60_000) => {
    const managed = new ManagedVllm({
      plan: {
        command: program,
        words: [folder],
        environment: { PATH: process.env["PATH"] ?? "" },
        socketPath: "",
        exposed: [],
      },
      state,
      probe: async () => existsSync(join(folder, "up")),
      startTimeoutMs,
      redact: createRedact([]),
      log: (_level, message, facts) => lines.push(`${message} ${String(facts?.["line"] ?? "")}`),
    });
    made.push(managed);
    return managed;
  };
  t.after(async () => {
    for (const managed of made) await managed.stop(0);
    rmSync(folder, { recursive: true, force: true });
  });
  const read = (name: string): string =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8") : "";
  return { folder, program, state, make, lines, read };
}

const alive = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));

test("it is ready when it answers, its lines are logged, and its end ends the whole group", async (t) => {
  const { make, lines, read } = fixture(t);
  const managed = make();
  await managed.start();
  await until("ready", () => managed.state === "ready");
  await until("its line", () => lines.some((line) => line.startsWith("vllm loading ")));
  const worker = Number(read("worker"));
  assert.ok(alive(worker));
  await managed.stop(10_000);
  assert.equal(read("drained"), "drained\n");
  await until("the worker is gone", () => !alive(worker));
  assert.equal(managed.state, "stopped");
});

test("one that ends is started again", async (t) => {
  const { make, read } = fixture(t);
  const managed = make();
  await managed.start();
  await until("ready", () => managed.state === "ready");
  process.kill(Number(read("starts").trim()), "SIGKILL");
  await until("a second start", () => read("starts").trim().split("\n").length === 2);
  await until("ready again", () => managed.state === "ready");
  assert.equal(managed.restarts, 1);
});

test("one that never answers is ended and started again", async (t) => {
  const { folder, make, read } = fixture(t);
  writeFileSync(join(folder, "die"), "");
  const managed = make(1);
  await managed.start();
  await until("a second start", () => read("starts").trim().split("\n").length >= 2);
  assert.notEqual(managed.state, "ready");
});

test("what an earlier life left behind is ended, and nobody else's process of that number", async (t) => {
  const { folder, program, state, make, read } = fixture(t);
  const left = spawn(program, [folder], { detached: true, stdio: "ignore" });
  const pid = left.pid ?? 0;
  await until("it is up", () => existsSync(join(folder, "up")));
  const worker = Number(read("worker"));
  state.write("vllm.pid", Buffer.from(`${pid} 1`));
  await make().start();
  assert.ok(alive(pid), "one that began at another time is another one");
  const began = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ")[19];
  state.write("vllm.pid", Buffer.from(`${pid} ${began}`));
  await make().start();
  await until("the old one is gone", () => !alive(pid) && !alive(worker));
});

test("a program that is not there is said at once", async (t) => {
  const { folder } = fixture(t);
  const managed = new ManagedVllm({
    plan: { command: join(folder, "missing"), words: [], environment: {}, socketPath: "", exposed: [] },
    state: openStateDirectory(join(folder, "other")),
    probe: async () => false,
    startTimeoutMs: 1000,
    redact: createRedact([]),
    log: () => {},
  });
  await assert.rejects(managed.start(), /ENOENT/);
});
