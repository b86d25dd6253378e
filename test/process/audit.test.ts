/**
 * The audit log of real processes: nobody gets an answer that is not in it, whenever the server dies; other processes
 * write into it at the same time; without it there is no answer; the commands show it and find what was changed.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { segmentsIn } from "#policy/audit/_segments.ts";
import { parseRecord, type StoredRecord } from "#policy/audit/record.ts";
import { verifyLog } from "#policy/audit/verify.ts";
import { makeKey, startServer, TEST_KEY, until } from "../harness.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const stateFolder = (): string => join(mkdtempSync(join(tmpdir(), "castellan-audited-")), "state");

function records(stateDir: string): StoredRecord[] {
  return segmentsIn(join(stateDir, "audit"))
    .flatMap(({ path }) => readFileSync(path, "utf8").split("\n"))
    .map((line) => parseRecord(line))
    .filter((record) => record !== undefined);
}

interface Child {
  readonly process: ChildProcess;
  readonly line: Promise<string>;
  readonly ended: Promise<number | string>;
}

function node(args: readonly string[], env: Record<string, string> = {}): Child {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  const line = new Promise<string>((done, failed) => {
    child.stdout.on("data", (chunk) => {
      text += String(chunk);
      if (text.includes("\n")) done(text.slice(0, text.indexOf("\n")));
    });
    child.on("exit", () => failed(new Error(`it printed no line: ${text}`)));
  });
  line.catch(() => {});
  return {
    process: child,
    line,
    ended: new Promise((done) => child.on("exit", (code, how) => done(how ?? code ?? -1))),
  };
}

async function command(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number | string; out: string }> {
  const child = node(["src/cli/main.ts", ...args], env);
  let out = "";
  child.process.stdout?.on("data", (chunk) => {
    out += String(chunk);
  });
  return { code: await child.ended, out };
}

/** Asks until the server is gone. @returns id → status of every answer whose head came */
async function ask(port: string, answers: Map<string, number>, name: string): Promise<void> {
  for (let i = 0; i < 5000; i++) {
    const id = `${name}-${i}`;
    const path = ["/json", "/stream", "/nowhere"][i % 3];
    const key = i % 7 === 0 ? "wrong" : "test-key";
    try {
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
        method: "POST",
        headers: { authorization: `Bearer ${key}`, "x-request-id": id, "content-type": "application/json" },
        body: "{}",
      });
      answers.set(id, answer.status);
      await answer.text();
    } catch {
      return;
    }
  }
}

test("killed at any moment: every answer that a client got has its record, and the chain goes on", async () => {
  const stateDir = stateFolder();
  const answers = new Map<string, number>();
  for (let round = 0; round < 12; round++) {
    const server = node(["test/fixtures/audited-server.ts", stateDir]);
    const port = await server.line;
    const wanted = answers.size + 1 + Math.floor(Math.random() * 150);
    const clients = Array.from({ length: 6 }, (_, client) => ask(port, answers, `${round}-${client}`));
    await until("answers", () => answers.size >= wanted);
    server.process.kill("SIGKILL");
    await Promise.all([...clients, server.ended]);
  }
  const calls = new Map(
    records(stateDir)
      .filter(({ kind }) => kind === "call")
      .map(({ fields }) => [fields["request"], fields["status"]]),
  );
  assert.ok(answers.size > 12);
  let counted = 0;
  for (const [id, status] of answers) {
    // Beyond a rate, refusals of nobody are counted only (the rest of them has records).
    if (status === 401 && !calls.has(id)) counted++;
    else assert.equal(calls.get(id), status, id);
  }
  assert.ok(counted < answers.size / 5);
  const last = node(["test/fixtures/audit-writer.ts", stateDir, "1"]);
  assert.equal(await last.ended, 0);
  const found = await verifyLog(join(stateDir, "audit"));
  assert.deepEqual(found.findings, []);
});

test("other processes write into the log of a server at work", async () => {
  const stateDir = stateFolder();
  const server = node(["test/fixtures/audited-server.ts", stateDir]);
  const port = await server.line;
  const answers = new Map<string, number>();
  const clients = [0, 1, 2].map((client) => ask(port, answers, `c${client}`));
  const writers = [1, 2, 3].map(() => node(["test/fixtures/audit-writer.ts", stateDir, "30"]).ended);
  assert.deepEqual(await Promise.all(writers), [0, 0, 0]);
  server.process.kill("SIGKILL");
  await Promise.all([...clients, server.ended]);
  assert.ok(answers.size > 0);
  const { findings } = await verifyLog(join(stateDir, "audit"));
  assert.deepEqual(
    findings.filter(({ kind }) => kind !== "torn"),
    [],
  );
  const events = records(stateDir).filter(({ fields }) => fields["event"] === "key.create");
  assert.equal(events.length, 90);
});

test("without its log a server answers nothing but 503, says so, and comes back by itself", async () => {
  const server = await startServer();
  const away = join(server.stateDir, "elsewhere");
  const status = async (path: string): Promise<number> => (await server.fetch(path)).status;
  const body = JSON.stringify({ model: "castellan-demo", messages: [{ role: "user", content: "Hi" }], max_tokens: 1 });
  const chat = () => server.fetch("/v1/chat/completions", { method: "POST", body });
  assert.equal((await chat()).status, 200);
  const watcher = await makeKey(server.stateDir, "service");
  const figures = () => server.fetch("/metrics", { key: watcher });
  await until("the new key is known", async () => (await figures()).status === 200);
  renameSync(join(server.stateDir, "audit"), away);
  const refused = await chat();
  assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);
  assert.match(await refused.text(), /cannot be recorded/);
  assert.equal((await server.fetch("/v1/nowhere", { key: null })).status, 503, "a refusal has no answer either");
  assert.equal(await status("/health"), 503);
  const metrics = await (await figures()).text();
  assert.match(metrics, /^castellan_audit_healthy 0$/m);
  assert.match(metrics, /^castellan_audit_failures_total\{reason="missing"\} [1-9]/m);
  renameSync(away, join(server.stateDir, "audit"));
  await until("it comes back by itself", async () => (await status("/health")) === 200);
  assert.equal((await chat()).status, 200);
  const gap = records(server.stateDir).find(({ kind }) => kind === "gap");
  assert.equal(gap?.fields["reason"], "missing");
  server.child.kill("SIGTERM");
  assert.equal(await server.exited, 0);
  assert.deepEqual((await verifyLog(join(server.stateDir, "audit"))).findings, []);
  assert.deepEqual(
    records(server.stateDir)
      .filter(({ kind }) => kind === "event")
      .map(({ fields }) => fields["event"]),
    ["server.start", "config.finding", "server.stop"],
  );
  await server.stop();
});

test("verify, tail, head and key on the command line", async () => {
  const server = await startServer({ args: ["--audit-content"] });
  const body = JSON.stringify({
    model: "castellan-demo",
    messages: [{ role: "user", content: "Hi there" }],
    stream: true,
    max_tokens: 4,
  });
  await (await server.fetch("/v1/chat/completions", { method: "POST", body })).text();
  await server.fetch("/v1/models", { key: "wrong" });
  const env = { CASTELLAN_STATE_DIR: server.stateDir };
  await until("the end is recorded", () => records(server.stateDir).some(({ kind }) => kind === "end"));

  const tail = await command(["audit", "tail"], env);
  assert.equal(tail.code, 0);
  assert.match(tail.out, /^TIME +RECORD +KIND +WHO +STATUS +WHAT$/m);
  assert.match(tail.out, /call +key_\w+@default +200 +POST \/v1\/chat\/completions .*from 127\.0\.0\.1$/m);
  assert.match(tail.out, /call +nobody +401 no +GET \/v1\/models unauthenticated/);
  assert.match(tail.out, /end .* castellan-demo \d+\+4 tokens/);
  const caller = /call +(key_\w+)@default/.exec(tail.out)?.[1] ?? "";
  const filtered = await command(
    ["audit", "tail", "--json", "--status", "2xx", "--key", caller, "--since", "10m"],
    env,
  );
  const shown = filtered.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    shown.map(({ kind, status }) => [kind, status]),
    [["call", 200]],
  );
  assert.match(JSON.stringify(shown[0]?.["content"]), /Hi there/);
  assert.equal((await command(["audit", "tail", "--since", "soon"], env)).code, 2);

  const follow = node(["src/cli/main.ts", "audit", "tail", "-f", "-n", "0", "--json", "--status", "404"], env);
  const caught = (async () => {
    for (let i = 0; i < 200; i++) {
      await server.fetch("/v1/nowhere", { method: "POST", body: "{}" });
      await new Promise((done) => setTimeout(done, 50));
      if (follow.process.exitCode !== null) return;
    }
  })();
  assert.match(await follow.line, /route_not_found/);
  follow.process.kill("SIGINT");
  assert.equal(await follow.ended, 0);
  await caught;

  const running = await command(["audit", "verify"], env);
  assert.equal(running.code, 0, running.out);
  server.child.kill("SIGTERM");
  await server.exited;
  const head = JSON.parse((await command(["audit", "head"], env)).out) as { hash: string };
  const key = join(server.stateDir, "..", "key.pub");
  writeFileSync(key, (await command(["audit", "key"], env)).out);
  const folder = join(server.stateDir, "audit");
  const copy = ["audit", "verify", folder, "--state-dir", "/nowhere", "--public-key", key, "--head", head.hash];
  const whole = await command(copy);
  assert.equal(whole.code, 0, whole.out);
  assert.match(whole.out, /The log is whole\./);

  const file = join(folder, readdirSync(folder).find((name) => name.endsWith(".jsonl")) ?? "");
  const text = readFileSync(file, "utf8");
  writeFileSync(file, text.replace('"status":401', '"status":200'));
  const altered = await command(["audit", "verify", "--json"], env);
  assert.equal(altered.code, 1);
  assert.equal((JSON.parse(altered.out) as { findings: { kind: string }[] }).findings[0]?.kind, "altered");
  writeFileSync(file, `${text.trimEnd().split("\n").slice(0, -3).join("\n")}\n`);
  const cut = await command(copy);
  assert.equal(cut.code, 1);
  assert.match(cut.out, /^TRUNCATED /m);
  assert.equal((await command(["audit", "verify", "/nowhere"])).code, 1);
  await server.stop();
});

test("--audit off keeps nothing and is a warning", async () => {
  const server = await startServer({ args: ["--audit", "off"] });
  assert.equal((await server.fetch("/v1/models", { key: TEST_KEY })).status, 200);
  assert.ok(!readdirSync(server.stateDir).some((name) => name.startsWith("audit")));
  assert.match(server.stdout(), /--audit is not at its safe default/);
  await server.stop();
});
