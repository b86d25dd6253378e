/**
 * The systemd unit, by systemd's own checks, and by what the server really asks the kernel for. Where a tool is missing a
 * test says so and is skipped.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type TestContext, test } from "node:test";
import { resolveSettings } from "#config/resolve.ts";
import { settingRows, variableOf } from "#config/settings.ts";
import { firstAnswer } from "../fixtures/first-answer.ts";
import { freePort } from "../harness.ts";

const root = resolve(import.meta.dirname, "../..");
const folder = join(root, "deploy/systemd");
const unit = readFileSync(join(folder, "castellan.service"), "utf8");
/** Tenths of systemd's exposure level, which goes from 0 to 100. */
const MOST_EXPOSED = 11;
const USER = 65_532;

function missing(program: string): string | false {
  return spawnSync(program, ["--version"]).status === 0 ? false : `${program} is not installed here`;
}

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-unit-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** With programs that are there, as systemd asks for them. */
function installed(t: TestContext): string {
  const path = join(scratch(t), "castellan.service");
  writeFileSync(path, unit.replace("/usr/bin/node", process.execPath));
  return path;
}

function settingsOf(name: string): string[] {
  return [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value ?? "");
}

test("systemd finds nothing wrong with the unit", { skip: missing("systemd-analyze") }, (t) => {
  const checked = spawnSync("systemd-analyze", ["verify", installed(t)], { encoding: "utf8" });
  assert.equal(checked.stdout + checked.stderr, "");
  assert.equal(checked.status, 0);
});

test("systemd rates what is open of it as little", { skip: missing("systemd-analyze") }, (t) => {
  const args = ["security", "--offline=true", `--threshold=${MOST_EXPOSED}`, installed(t)];
  const rated = spawnSync("systemd-analyze", args, { encoding: "utf8" });
  assert.match(rated.stdout, /Overall exposure level/);
  assert.equal(
    rated.status,
    0,
    rated.stdout
      .split("\n")
      .filter((line) => line.startsWith("✗"))
      .join("\n"),
  );
});

test("its flags, variables and file are settings of the server, and loosen nothing but the address", () => {
  const [command = ""] = settingsOf("ExecStart");
  const args = command
    .split(" ")
    .slice(3)
    .map((word) => word.replace("/etc/castellan", folder));
  const known = settingRows().map(([name]) => variableOf(name));
  const variables = settingsOf("Environment").map((line) => line.split("=") as [string, string]);
  assert.ok(variables.length >= 5);
  for (const [name] of variables) assert.ok(known.includes(name), name);
  const { warnings, settings } = resolveSettings(args, Object.fromEntries(variables));
  assert.deepEqual(warnings, []);
  assert.notEqual(settings.sslKeyfile, undefined);
  assert.match(settings.opsUds ?? "", /ops\.sock$/, "operations are on no network");
  for (const comment of unit.matchAll(/#.*Environment=(CASTELLAN_\w+)/g))
    assert.ok(known.includes(comment[1] ?? ""), comment[0]);
});

/** What the unit's filter leaves, by systemd's own tables. */
function allowedCalls(): Set<string> {
  const sets = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of execFileSync("systemd-analyze", ["syscall-filter"], { encoding: "utf8" }).split("\n")) {
    const text = line.trim();
    if (line.startsWith("@")) {
      current = [];
      sets.set(text, current);
    } else if (text !== "" && !text.startsWith("#")) current.push(text);
  }
  const expand = (name: string): string[] => (name.startsWith("@") ? (sets.get(name) ?? []).flatMap(expand) : [name]);
  const allowed = new Set<string>();
  for (const rule of settingsOf("SystemCallFilter"))
    for (const name of rule.replace(/^~/, "").split(" ").flatMap(expand))
      if (rule.startsWith("~")) allowed.delete(name);
      else allowed.add(name);
  assert.ok(allowed.size > 200, `${allowed.size} system calls`);
  return allowed;
}

/** As the unit starts it: not root, TLS aside. @returns the names of the calls */
async function tracedCalls(t: TestContext): Promise<Set<string>> {
  const home = scratch(t);
  chmodSync(home, 0o755);
  const [state, trace] = [join(home, "state"), join(home, "trace")];
  mkdirSync(state, { mode: 0o700 });
  writeFileSync(trace, "");
  for (const path of [state, trace]) chownSync(path, USER, USER);
  const [port, opsPort] = [await freePort(), await freePort()];
  const child = spawn(
    "setpriv",
    [
      ...["--reuid", String(USER), "--regid", String(USER), "--clear-groups", "--no-new-privs"],
      ...["strace", "-f", "-qq", "-o", trace, "-e", "signal=none"],
      ...[
        process.execPath,
        join(root, "bin/castellan"),
        "serve",
        "--port",
        String(port),
        "--ops-port",
        String(opsPort),
      ],
      ...["--state-dir", state, "--api-key", "k", "--threads", "2"],
    ],
    { stdio: "ignore", env: { PATH: process.env["PATH"], HOME: state }, cwd: home },
  );
  const exited = new Promise((done) => child.on("exit", done));
  try {
    await firstAnswer(child, port);
  } finally {
    // strace passes a signal on to nobody: the server, its child, is told.
    const [server] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8").trim().split(" ");
    process.kill(Number(server), "SIGTERM");
    await exited;
  }
  return new Set([...readFileSync(trace, "utf8").matchAll(/^\d+ +([a-z_0-9]+)\(/gm)].map(([, name]) => name ?? ""));
}

/** Somebody's private folder is no place for a service to run from. */
function closedToOthers(): string | false {
  for (let at = root; at !== dirname(at); at = dirname(at))
    if ((statSync(at).mode & 0o001) === 0) return "the checkout lies in a folder that other users cannot enter";
  return false;
}

const cannotTrace =
  missing("strace") ||
  missing("systemd-analyze") ||
  missing("setpriv") ||
  (process.getuid?.() !== 0 && "needs root") ||
  closedToOthers();

test("every system call of a start, an answer and an end passes the unit's filter", {
  skip: cannotTrace,
}, async (t) => {
  const used = await tracedCalls(t);
  assert.ok(used.has("epoll_pwait") && used.has("mprotect") && used.size > 50, `${used.size} were seen`);
  const allowed = allowedCalls();
  assert.deepEqual(
    [...used].filter((name) => !allowed.has(name)),
    [],
  );
});
