/**
 * `castellan run-batch` as people run it: rows in the order of the lines, whatever a line is and whenever the run is
 * killed.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { freePort, makeKey, until } from "../harness.ts";

const COMMAND = resolve(import.meta.dirname, "../../src/cli/main.ts");
const FOLDER = mkdtempSync(join(tmpdir(), "castellan-run-batch-"));

interface Row {
  readonly id: string;
  readonly custom_id: string | null;
  readonly response: {
    readonly status_code: number;
    readonly request_id: string;
    readonly body: { readonly object?: string; readonly usage?: { readonly completion_tokens: number } } | null;
  };
  readonly error: unknown;
}

interface Ended {
  readonly how: number | string;
  readonly out: string;
  readonly err: string;
}

function start(args: readonly string[]): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const fixed = ["--threads", "1", "--log-level", "warn", "--state-dir", join(FOLDER, "state")];
  const child = spawn(process.execPath, [COMMAND, "run-batch", ...args, ...fixed], {
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => {
    out += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    err += String(chunk);
  });
  const ended = new Promise<Ended>((done) =>
    child.on("close", (code, signal) => done({ how: signal ?? code ?? -1, out, err })),
  );
  return { child, ended };
}

const run = (...args: string[]): Promise<Ended> => start(args).ended;

function request(name: string, url: string, body: object): string {
  return JSON.stringify({ custom_id: name, method: "POST", url, body });
}

function completion(name: string, tokens = 4): string {
  return request(name, "/v1/completions", { prompt: [5, 6], max_tokens: tokens, ignore_eos: true, seed: 1 });
}

function rows(path: string): Row[] {
  const text = readFileSync(path, "utf8");
  assert.ok(text === "" || text.endsWith("\n"), "the last row is whole");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Row);
}

test("every line has its row, in order, and none ends the run", async () => {
  const [input, output] = [join(FOLDER, "mixed.jsonl"), join(FOLDER, "mixed.out")];
  const messages = [{ role: "user", content: "What is Castellan?" }];
  const lines = [
    request("chat", "/v1/chat/completions", { model: "castellan-demo", messages, max_tokens: 4 }),
    completion("twice"),
    "",
    completion("twice"),
    "{ no json",
    request("nobody", "/v1/completions", { model: "other", prompt: "x" }),
    request("stream", "/v1/completions", { prompt: "x", stream: true }),
    request("field", "/v1/completions", { prompt: "x", max_tokens: -1 }),
    request("score", "/v1/score", { text_1: "a", text_2: "b" }),
    request("ops", "/pause", {}),
    request("admin", "/admin/keys/create", { role: "admin" }),
    request("absolute", "http://127.0.0.1:1/v1/completions", { prompt: "x" }),
    request("speech", "/v1/audio/transcriptions", { file_url: "http://127.0.0.1:1/a.wav" }),
    `{"custom_id":"long","method":"POST","url":"/v1/completions","body":{"prompt":"${"x".repeat(9 << 20)}"}}`,
    completion("last", 3),
  ];
  writeFileSync(input, lines.join("\n"));
  const { how, out, err } = await run("-i", input, "--output_file", output, "--model", "castellan-demo.gguf");
  assert.equal(how, 1, "a model that is not there");
  assert.match(err, /castellan-demo\.gguf/);
  assert.equal(out, "");
  const ended = await run("-i", input, "--output_file", output);
  assert.equal(ended.how, 0, ended.err);
  assert.match(ended.out, /: 4 answered, 10 failed\n$/);
  const found = rows(output);
  assert.deepEqual(
    found.map(({ custom_id, response, error }) => [custom_id, response.status_code, error === null]),
    [
      ["chat", 200, true],
      ["twice", 200, true],
      ["twice", 200, true],
      [null, 400, false],
      ["nobody", 404, false],
      ["stream", 400, false],
      ["field", 400, false],
      ["score", 400, false],
      ["ops", 400, false],
      ["admin", 400, false],
      ["absolute", 400, false],
      ["speech", 400, false],
      [null, 400, false],
      ["last", 200, true],
    ],
  );
  assert.equal(new Set(found.flatMap(({ id, response }) => [id, response.request_id])).size, 2 * found.length);
  assert.equal(found[0]?.response.body?.object, "chat.completion");
  assert.equal(found[13]?.response.body?.usage?.completion_tokens, 3);
  assert.equal(existsSync(`${output}.state`), false);
});

test("a run that is killed in its middle goes on: no row twice, none lost", async () => {
  const [input, output] = [join(FOLDER, "long.jsonl"), join(FOLDER, "long.out")];
  const count = 400;
  const names = Array.from({ length: count }, (_, i) => `line ${i}`);
  writeFileSync(input, names.map((name, i) => completion(name, 1 + (i % 40))).join("\n"));
  const size = (): number => (existsSync(output) ? readFileSync(output, "utf8").split("\n").length - 1 : 0);
  let before = 0;
  for (const [signal, enough] of [
    ["SIGKILL", 20],
    ["SIGKILL", 90],
    ["SIGTERM", 160],
  ] as const) {
    const { child, ended } = start(["-i", input, "-o", output, "--max-concurrency", "4"]);
    await until(`${enough} rows are there`, () => size() >= enough);
    child.kill(signal);
    const { how, err } = await ended;
    assert.equal(how, signal === "SIGKILL" ? "SIGKILL" : 143, err);
    const now = size();
    assert.ok(now >= Math.max(before, enough) && now < count, `${now} rows`);
    before = now;
  }
  const last = await run("-i", input, "-o", output, "--max-concurrency", "4");
  assert.equal(last.how, 0, last.err);
  assert.match(last.out, /answered, 0 failed, behind \d+ of an earlier run/);
  assert.deepEqual(
    rows(output).map(({ custom_id, response }) => [custom_id, response.body?.usage?.completion_tokens]),
    names.map((name, i) => [name, 1 + (i % 40)]),
  );
});

/** Where a run is killed, by what can be seen of it from outside. */
const POINTS: readonly (readonly [where: string, there: (output: string, count: number) => boolean])[] = [
  ["before it has begun", (output) => existsSync(`${output}.lock`)],
  ["with no row", (output) => existsSync(`${output}.state`)],
  ["at its first row", (output) => sizeOf(output) > 0],
  ["in its middle", (output, count) => lineFeeds(output) >= count / 2],
  ["at its last row", (output, count) => lineFeeds(output) >= count],
];

const sizeOf = (path: string): number => (existsSync(path) ? statSync(path).size : 0);
const lineFeeds = (path: string): number => (existsSync(path) ? readFileSync(path, "utf8").split("\n").length - 1 : 0);

for (const [where, there] of POINTS)
  test(`a run that is killed ${where} ends as one that was not`, async () => {
    const name = where.replaceAll(" ", "-");
    const [input, output] = [join(FOLDER, `${name}.jsonl`), join(FOLDER, `${name}.out`)];
    const names = Array.from({ length: 60 }, (_, i) => `line ${i}`);
    writeFileSync(input, names.map((line, i) => completion(line, 1 + (i % 7))).join("\n"));
    const { child, ended } = start(["-i", input, "-o", output, "--max-concurrency", "2"]);
    for (const over = ended.then(() => true); !there(output, names.length); )
      if (await Promise.race([over, new Promise<false>((go) => setTimeout(() => go(false), 1))])) break;
    child.kill("SIGKILL");
    await ended;
    const before = lineFeeds(output);
    const { how, out, err } = await run("-i", input, "-o", output);
    assert.equal(how, 0, err);
    assert.deepEqual(
      rows(output).map(({ custom_id, response }) => [custom_id, response.body?.usage?.completion_tokens]),
      names.map((line, i) => [line, 1 + (i % 7)]),
      `${before} rows before; ${out}`,
    );
    assert.deepEqual(
      readdirSync(FOLDER).filter((file) => file.startsWith(`${name}.`)),
      [`${name}.jsonl`, `${name}.out`],
      "nothing is left beside it",
    );
  });

test("a run that was broken off is not continued with another input", async () => {
  const [input, output] = [join(FOLDER, "one.jsonl"), join(FOLDER, "one.out")];
  writeFileSync(input, Array.from({ length: 200 }, (_, i) => completion(`${i}`, 40)).join("\n"));
  const { child, ended } = start(["-i", input, "-o", output, "--max-concurrency", "2"]);
  await until("a row is there", () => existsSync(output) && readFileSync(output).length > 0);
  const second = await run("-i", input, "-o", output);
  assert.equal(second.how, 1);
  assert.match(second.err, /another run is writing/);
  child.kill("SIGKILL");
  await ended;
  writeFileSync(input, completion("other"));
  const { how, err } = await run("-i", input, "-o", output);
  assert.equal(how, 1);
  assert.match(err, /another input/);
});

test("metrics are open while it runs, for keys that may read them", async () => {
  const [input, output] = [join(FOLDER, "metrics.jsonl"), join(FOLDER, "metrics.out")];
  writeFileSync(input, Array.from({ length: 5000 }, (_, i) => completion(`${i}`, 40)).join("\n"));
  const key = await makeKey(join(FOLDER, "state"), "service");
  const port = await freePort();
  const { child, ended } = start(["-i", input, "-o", output, "--enable-metrics", "--port", String(port)]);
  const at = `http://127.0.0.1:${port}/metrics`;
  const headers = { authorization: `Bearer ${key}` };
  await until("the metrics are there", () =>
    fetch(at, { headers }).then(
      ({ status }) => status === 200,
      () => false,
    ),
  );
  assert.equal((await fetch(at)).status, 401);
  assert.equal((await fetch(`http://127.0.0.1:${port}/v1/models`, { headers })).status, 404);
  child.kill("SIGTERM");
  assert.equal((await ended).how, 143);
});

test("a wrong call says what is wrong and ends with 2; help has the flags", async () => {
  for (const [args, said] of [
    [["-o", "x"], /--input-file/],
    [["-i", "x"], /--output-file/],
    [["-i", "http://example.com/in", "-o", "x"], /local file, or an https URL/],
    [["-i", "s3://example/in", "-o", "x"], /local file, or an https URL/],
    [["-i", "x", "-o", "http://example.com/out"], /local file/],
    [["-i", "x", "-i", "y", "-o", "z"], /twice/],
    [["-i", "x", "-o", "z", "--max-concurrency", "0"], /max-concurrency/],
    [["-i", "x", "-o", "z", "--max-num-seq", "2"], /max-num-seqs/],
    [["-i", "x", "-o", "z", "-x"], /-x/],
  ] as const) {
    const { how, err } = await run(...args);
    assert.equal(how, 2, args.join(" "));
    assert.match(err, said);
  }
  const missing = await run("-i", join(FOLDER, "missing"), "-o", join(FOLDER, "z"));
  assert.equal(missing.how, 1);
  assert.match(missing.err, /missing cannot be read \(ENOENT\)/);
  const unnamed = await run("-i", "https://example.com/in?signature", "-o", join(FOLDER, "z"));
  assert.equal(unnamed.how, 1);
  assert.match(unnamed.err, /https:\/\/example\.com\/in cannot be fetched: .*--batch-url-hosts/);
  const { how, out } = await run("--help");
  assert.equal(how, 0);
  for (const flag of [
    "-i, --input-file",
    "-o, --output-file",
    "--output-tmp-dir",
    "--enable-metrics",
    "--max-num-seqs",
  ])
    assert.ok(out.includes(flag), flag);
});
