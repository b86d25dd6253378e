/**
 * The command line as people use it: help, chat and bench against a real server, and what a wrong call says.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { resolve } from "node:path";
import { after, before, test } from "node:test";
import { SETTINGS } from "#config/settings.ts";
import { startServer, TEST_KEY, type TestServer } from "../harness.ts";

const COMMAND = resolve(import.meta.dirname, "../../bin/castellan");

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs the launcher as a shell would, with `input` on a pipe. */
function castellan(args: readonly string[], input = "", env: Record<string, string> = {}): Promise<Ended> {
  const child = spawn(COMMAND, args, {
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1", ...env },
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => {
    out += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    err += String(chunk);
  });
  child.stdin.end(input);
  return new Promise((done) => child.on("close", (code) => done({ code, out, err })));
}

let server: TestServer;
before(async () => {
  server = await startServer();
});
after(() => server.stop());

test("help lists the commands, serve --help every setting with its flag", async () => {
  const help = await castellan(["--help"]);
  assert.equal(help.code, 0);
  for (const command of ["serve", "chat", "bench"]) assert.match(help.out, new RegExp(`^ {2}${command}`, "m"));
  const serve = await castellan(["serve", "--help"]);
  assert.equal(serve.code, 0);
  for (const name of Object.keys(SETTINGS)) {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    if (name !== "model") assert.ok(serve.out.includes(flag), `${flag} is in the help`);
  }
});

test("a wrong call says what is wrong and ends with 2", async () => {
  const flag = await castellan(["serve", "--max-num-seq", "3"]);
  assert.equal(flag.code, 2);
  assert.match(flag.err, /--max-num-seq\b.*--max-num-seqs/s);
  const value = await castellan(["serve", "--port", "99999"]);
  assert.equal(value.code, 2);
  assert.match(value.err, /--port/);
  const command = await castellan(["serv"]);
  assert.notEqual(command.code, 0);
  assert.match(command.err, /serve/);
  const load = await castellan(["bench", "--load", "heavy"]);
  assert.equal(load.code, 2);
  assert.match(load.err, /--load is one of/);
});

test("chat answers the lines of a pipe, remembers, and forgets on /reset", async () => {
  const env = { CASTELLAN_API_KEY: TEST_KEY };
  const chat = await castellan(
    ["chat", "--url", server.url, "--temperature", "0", "--max-tokens", "24"],
    "Hello!\n/reset\nHello!\n/exit\nnever read\n",
    env,
  );
  assert.equal(chat.code, 0, chat.err);
  const answers = chat.out.trim().split("\n");
  assert.equal(answers.length, 2, "two answers, nothing after /exit");
  assert.ok((answers[0] ?? "").length > 0);
  assert.equal(answers[0], answers[1], "after /reset the same question is the first again");
});

test("chat and bench without the key, or without a server, fail in a sentence", async () => {
  const noKey = await castellan(["chat", "--url", server.url], "Hello\n");
  assert.equal(noKey.code, 1);
  assert.match(noKey.err, /^castellan: .*(401|key)/i);
  const nobody = await castellan(["bench", "--url", "http://127.0.0.1:9", "--requests", "1"]);
  assert.equal(nobody.code, 1);
  assert.match(nobody.err, /^castellan: .+/);
  assert.doesNotMatch(nobody.err, /\n\s+at /, "no stack for a user's mistake");
});

test("bench counts what it sent", async () => {
  const args = ["bench", "--url", server.url, "--json", "--requests", "6", "--concurrency", "3", "--max-tokens", "5"];
  const bench = await castellan([...args, "--load", "short"], "", { CASTELLAN_API_KEY: TEST_KEY });
  assert.equal(bench.code, 0, bench.err);
  const report = JSON.parse(bench.out) as Record<string, number & Record<string, number>>;
  assert.equal(report["requests"], 6);
  assert.deepEqual(report["failed"], {});
  assert.equal(Math.round((report["tokensPerSecond"] ?? 0) * (report["seconds"] ?? 0)), 30);
  for (const name of ["ttft", "interToken"]) {
    const { p50 = 0, p90 = 0, p99 = 0 } = report[name] as Record<string, number>;
    assert.ok(p50 > 0 && p50 <= p90 && p90 <= p99, name);
  }
});

test("a port that is taken is named", async () => {
  const second = await castellan(["serve", "--port", String(server.port), "--api-key", "k", "--ops-port", "0"], "", {
    CASTELLAN_STATE_DIR: `${server.stateDir}-2`,
  });
  assert.equal(second.code, 1);
  assert.match(second.err, new RegExp(`${server.port}: something else listens there`));
});
