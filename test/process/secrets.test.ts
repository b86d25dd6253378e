/**
 * No secret shows: a server gets known secrets in every place where it takes one, clients put theirs where they belong
 * and where they do not, things go wrong; then everything that came out is searched for every one of them.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { freePort, makeKey, startServer, type TestServer, until } from "../harness.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const secret = (name: string): string => `${name}-${randomBytes(12).toString("hex")}`;
const folder = (): string => mkdtempSync(join(tmpdir(), "castellan-secrets-"));
const MINTED = /cst_[0-9A-Za-z]{46}/;

/** What came out, by where. */
type Output = Map<string, string>;

function search(output: Output, secrets: readonly string[]): void {
  for (const [where, text] of output)
    for (const one of secrets) {
      const at = text.indexOf(one);
      assert.ok(at < 0, `${where} shows ${one}: …${text.slice(Math.max(0, at - 200), at + 80)}…`);
    }
}

function filesIn(path: string, output: Output): void {
  for (const name of readdirSync(path, { recursive: true, encoding: "utf8" }))
    if (statSync(join(path, name)).isFile()) output.set(name, readFileSync(join(path, name), "latin1"));
}

/** The server and what it started, as other users and its own see them. */
function processes(server: TestServer, output: Output): void {
  const pid = server.child.pid ?? -1;
  for (const one of [pid, ...server.descendants()]) {
    output.set(`command line of ${one}`, readFileSync(`/proc/${one}/cmdline`, "latin1"));
    // A process can always read its own environment; its children get none of it.
    if (one !== pid) output.set(`environment of ${one}`, readFileSync(`/proc/${one}/environ`, "latin1"));
    assert.match(readFileSync(`/proc/${one}/coredump_filter`, "latin1"), /^0+$/m, "core dumps hold no memory");
  }
}

/** Every wrong place for a key, each with the right one in its place, too. */
async function traffic(server: TestServer, right: string, others: readonly string[], output: Output): Promise<void> {
  const keep = async (name: string, answer: Promise<Response>): Promise<void> => {
    const got = await answer;
    const headers = [...got.headers].map(([header, value]) => `${header}: ${value}`).join("\n");
    output.set(`answer ${output.size} ${name} ${got.status}`, `${headers}\n${await got.text()}`);
  };
  const chat = (body: unknown, init: Parameters<TestServer["fetch"]>[1] = {}): Promise<Response> =>
    server.fetch("/v1/chat/completions", {
      method: "POST",
      key: right,
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
    });
  const good = { model: "castellan-demo", max_tokens: 2, messages: [{ role: "user", content: "Hi" }] };
  for (const one of [right, ...others]) {
    await keep("right place", server.fetch("/v1/models", { key: one }));
    await keep("query", server.fetch(`/v1/models?api_key=${one}`, { key: null }));
    await keep("query", server.fetch(`/v1/models?api_key=${one}`, { key: right }));
    await keep("path", server.fetch(`/v1/${one}`, { key: right }));
    await keep("basic", server.fetch("/v1/models", { key: null, headers: { authorization: `Basic ${one}` } }));
    await keep("header", server.fetch("/v1/models", { key: null, headers: { "x-api-key": one, cookie: `k=${one}` } }));
    for (const id of [one, `id-${one}`]) {
      await keep("request id", chat(good, { headers: { "x-request-id": id } }));
      await keep("request id", server.fetch("/v1/models", { key: one, headers: { "x-request-id": id } }));
    }
    await keep("field", chat({ ...good, api_key: one }));
    await keep("model", chat({ ...good, model: one }));
    await keep("number", chat({ ...good, n: one, temperature: one }));
    await keep("name", chat({ ...good, [one]: 1 }));
    await keep("role", chat({ ...good, messages: [{ role: one, content: "Hi" }] }));
    await keep("json", chat(`{"a": ${one}`));
    await keep("json", chat(`{"${one}": 1, "${one}": 2}`));
    await keep("grammar", chat({ ...good, structured_outputs: { regex: `(${one}` } }));
    await keep("stream", chat({ ...good, stream: true, stop: [one] }));
    await keep("type", chat(good, { headers: { "content-type": one } }));
    output.set(`bytes ${output.size}`, await raw(server.port, `GET /${one} HTTP/1.1\r\n${one}\r\n\r\n`));
    output.set(`bytes ${output.size}`, await raw(server.port, `${one} / HTTP/1.1\r\nHost: x\r\n\r\n`));
  }
  const watcher = await makeKey(server.stateDir, "service");
  await until("the new key is known", async () => (await server.fetch("/metrics", { key: watcher })).status === 200);
  await keep("metrics", server.fetch("/metrics", { key: watcher }));
  await keep("metrics", server.fetch("/metrics", { key: right }));
}

function raw(port: number, bytes: string): Promise<string> {
  return new Promise((done) => {
    let text = "";
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("data", (chunk) => {
      text += String(chunk);
    });
    socket.on("error", () => {});
    socket.on("close", () => done(text));
    socket.end(bytes);
  });
}

async function ended(server: TestServer, output: Output, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  server.child.kill(signal);
  await server.exited;
  output.set("standard output", server.stdout());
  output.set("standard error", server.stderr());
  filesIn(server.stateDir, output);
}

const LOUD = ["--log-level", "debug", "--enable-request-id-headers"];

test("secrets from variables and files", async () => {
  const file = join(folder(), "keys");
  const [byVariable, byFile, token, seed] = ["variable", "file", "token", "seed"].map(secret) as [
    string,
    string,
    string,
    string,
  ];
  writeFileSync(file, `${byFile}\n`, { mode: 0o600 });
  const server = await startServer({
    apiKey: null,
    env: { CASTELLAN_API_KEY: byVariable, HF_TOKEN: token, PYTHONHASHSEED: seed },
    args: [...LOUD, "--api-key-file", file, "--audit-content"],
  });
  const output: Output = new Map();
  await traffic(server, byVariable, [byFile, token], output);
  assert.equal((await server.fetch("/v1/models", { key: byFile })).status, 200);
  processes(server, output);
  await ended(server, output);
  const audit = [...output].filter(([where]) => where.startsWith("audit/audit-")).map(([, text]) => text);
  assert.match(audit.join(), /\[secret\]/, "content was kept, without them");
  search(output, [byVariable, byFile, token, seed]);
  await server.stop();
});

/** As users start it, and as a Node that cannot become another program does. */
const LAUNCHERS = [
  { how: "becomes the server", flags: [], processes: 2 },
  { how: "stays beside it", flags: ["--import", "data:text/javascript,delete process.execve"], processes: 3 },
] as const;

for (const { how, flags, processes } of LAUNCHERS)
  test(`a key and a token as flags: blanked in the list of processes; the launcher ${how}`, () =>
    hidden(flags, processes));

async function hidden(flags: readonly string[], processes: number): Promise<void> {
  const [key, token] = ["flag", "token"].map(secret) as [string, string];
  const [port, opsPort, stateDir] = [await freePort(), await freePort(), join(folder(), "state")];
  const args = [
    "serve",
    "--port",
    port,
    "--ops-port",
    opsPort,
    "--state-dir",
    stateDir,
    "--threads",
    1,
    "--api-key",
    key,
  ];
  const launcher = spawn(
    process.execPath,
    [...flags, join(ROOT, "bin/castellan"), ...args.map(String), `--hf-token=${token}`, "--log-level", "debug"],
    {
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  let said = "";
  for (const stream of [launcher.stdout, launcher.stderr])
    stream.on("data", (chunk) => {
      said += String(chunk);
    });
  const gone = new Promise((done) => launcher.on("exit", done));
  try {
    await until("the server is ready", async () => {
      try {
        return (await fetch(`http://127.0.0.1:${port}/health`)).ok;
      } catch {
        return false;
      }
    });
    const answer = await fetch(`http://127.0.0.1:${port}/v1/models`, { headers: { authorization: `Bearer ${key}` } });
    assert.equal(answer.status, 200);
    const output: Output = new Map([["answer", await answer.text()]]);
    const group = readdirSync("/proc").filter(
      (name) => /^\d+$/.test(name) && descends(Number(name), launcher.pid ?? -1),
    );
    assert.equal(group.length, processes, "the server and its engine, and the launcher if it stays");
    for (const pid of group) output.set(`command line of ${pid}`, readFileSync(`/proc/${pid}/cmdline`, "latin1"));
    launcher.kill("SIGTERM");
    await gone;
    output.set("output", said);
    filesIn(stateDir, output);
    assert.match(said, /can be seen by other users/);
    search(output, [key, token]);
  } finally {
    launcher.kill("SIGTERM");
  }
}

function descends(pid: number, from: number): boolean {
  for (let at = pid; at > 1; ) {
    if (at === from) return true;
    try {
      const stat = readFileSync(`/proc/${at}/stat`, "utf8");
      at = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    } catch {
      return false;
    }
  }
  return false;
}

test("a minted key is shown once, and nowhere else", async () => {
  const server = await startServer({ apiKey: null, args: LOUD });
  await until("the key is printed", () => MINTED.test(server.stdout()));
  const key = MINTED.exec(server.stdout())?.[0] ?? "";
  assert.notEqual(key, "");
  const other = `${key.slice(0, -8)}AAAAAAAA`;
  const output: Output = new Map();
  await traffic(server, key, [other], output);
  processes(server, output);
  await ended(server, output);
  output.delete("standard output");
  search(output, [key, other]);
  await server.stop();
});

test("a crash: no report, stack or last word shows one", async () => {
  const reports = folder();
  const crash = "data:text/javascript,process.on('SIGUSR2',()=>{throw%20new%20Error('crash%20on%20purpose')})";
  for (const flag of [false, true]) {
    const key = secret("crash");
    const server = await startServer({
      apiKey: null,
      args: [...LOUD, ...(flag ? ["--api-key", key] : [])],
      env: {
        ...(flag ? {} : { CASTELLAN_API_KEY: key }),
        NODE_OPTIONS: `--report-uncaught-exception --report-on-fatalerror --report-directory=${reports} --import=${crash}`,
      },
    });
    const output: Output = new Map();
    assert.equal((await server.fetch("/v1/models", { key })).status, 200);
    await ended(server, output, "SIGUSR2");
    assert.match(output.get("standard error") ?? "", /crash on purpose/);
    const before = output.size;
    filesIn(reports, output);
    if (!flag) assert.ok(output.size > before, "there is a report to be searched");
    search(output, [key]);
    await server.stop();
  }
});

test("a start that fails does not show what it was given", async () => {
  const [password, key] = ["password", "key"].map(secret) as [string, string];
  const stateDir = join(folder(), "state");
  const cases: { args: string[]; env: Record<string, string> }[] = [
    { args: [], env: { CASTELLAN_DATABASE_URL: `postgresql://castellan:${password}@127.0.0.1:9/castellan` } },
    { args: ["--database-url", `postgresql://castellan:${password}@127.0.0.1:9/castellan`], env: {} },
    { args: ["--database-url", `nonsense:${password}`], env: {} },
    { args: ["--port", "99999", "--api-key", key], env: {} },
    { args: ["--api-key", `${key} with a space`], env: {} },
    { args: ["--api-keys", key], env: {} },
    { args: [`--hf-tokn=${key}`], env: {} },
    { args: ["--config", join(stateDir, "..", "config.yaml")], env: {} },
  ];
  mkdirSync(join(stateDir, ".."), { recursive: true });
  writeFileSync(join(stateDir, "..", "config.yaml"), `api-key: [${key}, {]\n`);
  for (const { args, env } of cases) {
    const server = await startServer({ apiKey: null, stateDir, args: [...LOUD, ...args], env, waitReady: false });
    assert.notEqual(await server.exited, 0, args.join(" "));
    const shown = server.stdout() + server.stderr();
    assert.notEqual(shown, "");
    search(new Map([[`a start with ${args[0]}`, shown]]), [password, key]);
  }
});
