/**
 * `castellan keys` as people use it: what is printed where, what is refused, and that a running server follows.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { postgresMissing, startPostgres } from "../fixtures/postgres.ts";
import { startServer, until } from "../harness.ts";

const MAIN = resolve(import.meta.dirname, "../../src/cli/main.ts");
const KEY = /^cst_[0-9A-Za-z]{46}$/;

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

function run(args: readonly string[], env: Readonly<Record<string, string>>): Promise<Ended> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", MAIN, "keys", ...args], {
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.on("data", (chunk) => {
    out += String(chunk);
  });
  child.stderr.on("data", (chunk) => {
    err += String(chunk);
  });
  return new Promise((done) => child.on("close", (code) => done({ code, out, err })));
}

function scene(t: TestContext): { readonly stateDir: string; keys(...args: string[]): Promise<Ended> } {
  const folder = mkdtempSync(join(tmpdir(), "castellan-keys-cli-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const stateDir = join(folder, "state");
  return { stateDir, keys: (...args) => run(args, { CASTELLAN_STATE_DIR: stateDir }) };
}

test("create prints the key alone on standard output, and nobody keeps it", async (t) => {
  const { stateDir, keys } = scene(t);
  const made = await keys("create", "--name", "laptop", "--tenant", "acme", "--budget", "10usd/month", "--cap", "n=2");
  assert.equal(made.code, 0, made.err);
  const key = made.out.trim();
  assert.match(key, KEY);
  assert.match(made.err, /acme is a new tenant/);
  assert.match(made.err, /^budget +10usd\/month$/m);
  assert.ok(!made.err.includes(key));
  for (const entry of readdirSync(stateDir, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name);
    if (entry.isFile()) assert.ok(!readFileSync(file, "latin1").includes(key.slice(4)), file);
  }
  const log = readdirSync(join(stateDir, "audit")).filter((name) => name.endsWith(".jsonl"));
  const records = log.map((name) => readFileSync(join(stateDir, "audit", name), "utf8")).join("");
  assert.match(records, /"key.create".*"tenant":"acme","name":"laptop","role":"user"/);
  const shown = await keys("show", "laptop");
  assert.match(shown.out, /^tenant +acme$/m);
  assert.match(shown.out, /^cap n +2$/m);
  assert.ok(!shown.out.includes(key.slice(4, 20)));
});

test("JSON holds all of it, and the key only where it was made", async (t) => {
  const { keys } = scene(t);
  const flags = [
    "--scopes",
    "inference,models:read",
    "--models",
    "a*,b",
    "--networks",
    "10.0.0.0/8",
    "--priority",
    "-2",
  ];
  const times = ["--not-before", "2030-01-01", "--expires", "2031-01-01T12:00Z"];
  const limits = [
    "--requests-per-minute",
    "60",
    "--tokens-per-day",
    "1_000",
    "--budget",
    "0.5usd/day",
    "--budget",
    "7tokens/week",
  ];
  const made = await keys("create", "--json", "--name", "x", "--role", "service", ...flags, ...times, ...limits);
  const { key, ...record } = JSON.parse(made.out) as Record<string, unknown>;
  assert.match(String(key), KEY);
  assert.deepEqual(
    { ...record, id: "", created_at: "", created_by: "", generations: [] },
    {
      id: "",
      status: "not yet",
      tenant: "default",
      name: "x",
      role: "service",
      scopes: ["inference", "models:read"],
      models: ["a*", "b"],
      adapters: null,
      tools: null,
      networks: ["10.0.0.0/8"],
      priority: -2,
      limits: {
        requests_per_minute: 60,
        tokens_per_day: 1000,
        budgets: [
          { period: "day", unit: "usd", amount: 500_000 },
          { period: "week", unit: "tokens", amount: 7 },
        ],
      },
      caps: {},
      not_before: "2030-01-01T00:00:00.000Z",
      expires_at: "2031-01-01T12:00:00.000Z",
      disabled_at: null,
      deleted_at: null,
      created_at: "",
      created_by: "",
      last_used_at: null,
      generations: [],
    },
  );
  assert.deepEqual(JSON.parse((await keys("show", "x", "--json")).out), record);
  assert.deepEqual(JSON.parse((await keys("list", "--json")).out), [record]);
});

test("the life of a key", async (t) => {
  const { keys } = scene(t);
  const first = (await keys("create", "--name", "bot")).out;
  const second = await keys("rotate", "bot", "--overlap", "1h");
  assert.match(second.out.trim(), KEY);
  assert.notEqual(second.out, first);
  assert.match((await keys("show", "bot")).out, /^generation 1 .*works until .*\ngeneration 2 /m);
  const [{ id }] = JSON.parse((await keys("list", "--json")).out) as [{ id: string }];
  const status = async (): Promise<unknown> =>
    (JSON.parse((await keys("show", id, "--json")).out) as { status: unknown }).status;
  assert.match((await keys("disable", "bot")).out, /is disabled/);
  assert.equal(await status(), "disabled");
  await keys("enable", id);
  assert.equal(await status(), "active");
  await keys("delete", id);
  assert.equal(await status(), "deleted");
  const list = await keys("list");
  assert.deepEqual([list.out, list.code], ["", 0]);
  assert.match((await keys("list", "--all")).out, new RegExp(`^ID .*\n${id} +deleted`));
  assert.match((await keys("enable", id)).err, /is deleted/);
});

test("what is wrong is one line, with what would be right", async (t) => {
  const { stateDir, keys } = scene(t);
  const wrong: readonly [args: readonly string[], message: RegExp][] = [
    [["list"], /there is no state directory/],
    [["create", "--role", "god"], /Allowed choices are user, service/],
    [["create", "--role", "user", "--scopes", "ops"], /role user does not have the scope ops/],
    [["create", "--scopes", "everything"], /scopes\.0/],
    [["create", "--expires", "tomorrow"], /neither a duration such as 90d nor a date/],
    [["create", "--expires", "2020-01-01"], /would have expired already/],
    [["create", "--networks", "10.0.0.0/99"], /no network such as 10\.0\.0\.0\/8/],
    [["create", "--requests-per-minute", "many"], /--requests-per-minute takes a whole number/],
    [["create", "--budget", "10eur/month"], /no budget such as 10usd\/month/],
    [["create", "--tenant", "a b"], /^castellan: tenant/],
    [["create", "--nmae", "x"], /unknown option '--nmae'/],
    [["create", "--pepper-file", "/nowhere"], /the pepper file cannot be read/],
    [["create", "--database-url", "mysql://x"], /does not look like postgres:/],
    [["show", "nobody"], /no key with the id or name "nobody"/],
    [["rotate", "nobody", "--overlap", "1 day"], /nobody/],
  ];
  for (const [args, message] of wrong) {
    const { code, out, err } = await keys(...args);
    assert.notEqual(code, 0, args.join(" "));
    assert.match(err, message);
    assert.equal(out, "");
    assert.doesNotMatch(err, /\n\s+at /, "no stack for a user's mistake");
  }
  const { out } = await keys("create");
  const pasted = await keys("disable", out.trim());
  assert.match(pasted.err, /that is a key itself/);
  assert.ok(!pasted.err.includes(out.trim()));
  await keys("create", "--name", "twin");
  await keys("create", "--name", "twin");
  assert.match((await keys("delete", "twin")).err, /2 keys have this name: key_\w+, key_/);
  chmodSync(join(stateDir, "policy.db"), 0o644);
  assert.match((await keys("list")).err, /can be read or written by others/);
});

test("help has examples, and lists every command", async (t) => {
  const { keys } = scene(t);
  const help = await keys("--help");
  assert.equal(help.code, 0);
  for (const command of ["create", "list", "show", "rotate", "disable", "enable", "delete"])
    assert.match(help.out, new RegExp(`^ {2}${command}`, "m"));
  assert.match(help.out, /Examples:\n {2}castellan keys create/);
  assert.match((await keys("create", "--help")).out, /--concurrent-requests <n>/);
});

test("a running server follows", async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const keys = (...args: string[]): Promise<Ended> => run(args, { CASTELLAN_STATE_DIR: server.stateDir });
  const status = async (key: string, path = "/v1/models"): Promise<number> =>
    (await server.fetch(path, { key })).status;
  const key = (await keys("create", "--name", "bot", "--role", "operator")).out.trim();
  await until("the key works", async () => (await status(key)) === 200);
  assert.equal(await status(key, "/metrics"), 200);
  const next = (await keys("rotate", "bot", "--overlap", "0")).out.trim();
  await until("the old generation ends", async () => (await status(key)) === 401);
  assert.equal(await status(next), 200);
  await keys("disable", "bot");
  await until("it is disabled", async () => (await status(next)) === 401);
});

test("keys in PostgreSQL, by its URL from the environment", { skip: postgresMissing ?? false }, async (t) => {
  const postgres = await startPostgres();
  t.after(() => postgres.stop());
  const { stateDir } = scene(t);
  const env = { CASTELLAN_STATE_DIR: stateDir, CASTELLAN_DATABASE_URL: await postgres.database() };
  assert.match((await run(["create", "--name", "shared"], env)).out.trim(), KEY);
  assert.match((await run(["list"], env)).out, /shared/);
  assert.ok(!readdirSync(stateDir).some((name) => name.startsWith("policy.db")), "no second store beside the database");
  rmSync(join(stateDir, "pepper"));
  assert.match((await run(["list"], env)).err, /pepper is missing/);
});
