/**
 * `castellan serve MODEL --engine vllm`: a program that stands for vLLM (this one, with an engine of its own, behind the
 * flags that vLLM gets) is started, answered by, started again, and ended.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { startServer, until } from "../harness.ts";

const ROOT = resolve(import.meta.dirname, "../..");

/** Keeps what it was given, then serves on the socket as vLLM does. */
function standIn(): { readonly program: string; readonly folder: string } {
  const folder = mkdtempSync(join(tmpdir(), "castellan-test-"));
  const program = join(folder, "vllm");
  writeFileSync(
    program,
    `#!/bin/sh
printf '%s\\n' "$@" > ${folder}/words
env > ${folder}/environment
echo $$ >> ${folder}/starts
while [ $# -gt 0 ]; do [ "$1" = --uds ] && uds=$2; shift; done
exec ${process.execPath} --disable-warning=ExperimentalWarning ${join(ROOT, "src/cli/main.ts")} serve \\
  --uds "$uds" --ops-port 0 --state-dir ${folder}/state --threads 1 --served-model-name org/model --log-level warn
`,
  );
  chmodSync(program, 0o755);
  return { program, folder };
}

test("the door answers for a vLLM that it started, and takes it along", async (t) => {
  const { program, folder } = standIn();
  const server = await startServer({
    model: "org/model",
    args: [
      "--engine",
      "vllm",
      "--vllm-command",
      program,
      "--tensor-parallel-size",
      "8",
      "--upstream-health-interval",
      "1",
    ],
  });
  t.after(() => server.stop());
  const read = (name: string): string => readFileSync(join(folder, name), "utf8");
  const words = read("words").trim().split("\n");
  assert.deepEqual(words.slice(0, 4), ["serve", "org/model", "--tensor-parallel-size", "8"]);
  const socket = words[words.indexOf("--uds") + 1] ?? "";
  assert.equal(statSync(dirname(socket)).mode & 0o077, 0, "nobody else reaches the socket");
  const key = /^VLLM_API_KEY=(\S{43})$/m.exec(read("environment"))?.[1];
  assert.ok(key !== undefined && !words.some((word) => word.includes(key)));

  const ask = () =>
    server.fetch("/v1/completions", {
      method: "POST",
      body: JSON.stringify({ model: "org/model", prompt: "Hi", max_tokens: 3 }),
    });
  const answer = await ask();
  assert.equal(answer.status, 200);
  assert.equal(((await answer.json()) as { model: string }).model, "org/model");

  process.kill(Number(read("starts").trim()), "SIGKILL");
  await until("it was started again", () => read("starts").trim().split("\n").length === 2);
  await until("it answers again", async () => (await ask()).status === 200);

  const last = Number(read("starts").trim().split("\n")[1]);
  server.child.kill("SIGTERM");
  assert.equal(await server.exited, 0);
  assert.throws(() => process.kill(last, 0), /ESRCH/);
});

test("a vLLM that is not installed is said at once", async (t) => {
  const server = await startServer({
    model: "org/model",
    args: ["--engine", "vllm", "--vllm-command", "/nowhere/vllm"],
    waitReady: false,
  });
  t.after(() => server.stop());
  assert.equal(await server.exited, 1);
  assert.match(server.stderr(), /\/nowhere\/vllm cannot be started \(--vllm-command\)/);
});

test("what vLLM prints goes to the log without its key, also where the line is cut", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "castellan-test-"));
  const program = join(folder, "vllm");
  const long = "x".repeat(1925);
  writeFileSync(
    program,
    `#!/bin/sh
printf 'environ: %s\n' "$VLLM_API_KEY"
printf 'api_key=[%s] %s%s\n' "$VLLM_API_KEY" ${long} "$VLLM_API_KEY" >&2
printf '%s' "$VLLM_API_KEY" > ${folder}/key
exec sleep 600
`,
  );
  chmodSync(program, 0o755);
  const server = await startServer({
    model: "org/model",
    args: ["--engine", "vllm", "--vllm-command", program, "--log-level", "info"],
    waitReady: false,
  });
  t.after(async () => {
    server.child.kill("SIGTERM");
    await server.exited;
    await server.stop();
  });
  await until("both lines", () => /environ/.test(server.stderr()) && /api_key=/.test(server.stderr()));
  const key = readFileSync(join(folder, "key"), "utf8");
  assert.equal(key.length, 43);
  assert.match(server.stderr(), /environ: \[secret\]"/);
  assert.match(server.stderr(), /api_key=\[\[secret\]\] x+/);
  const all = server.stderr() + server.stdout();
  for (let at = 0; at + 6 <= key.length; at++) assert.ok(!all.includes(key.slice(at, at + 6)), "a part of it");
});
