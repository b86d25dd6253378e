/**
 * The published package: packed, installed in an empty folder, started, asked one question.
 *
 * Its dependencies are taken from this checkout by links, as a test must not need a registry.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { firstAnswer } from "./fixtures/first-answer.ts";
import { freePort } from "./harness.ts";

const root = resolve(import.meta.dirname, "..");

/** Unpacks the tarball as npm would, and links the dependencies that the lock file gives it. */
function install(): string {
  const folder = mkdtempSync(join(tmpdir(), "castellan-pack-"));
  execFileSync(process.execPath, ["--disable-warning=ExperimentalWarning", join(root, "scripts/build.ts")], {
    cwd: root,
  });
  const packed = execFileSync("npm", ["pack", "--ignore-scripts", "--pack-destination", folder], {
    cwd: root,
    encoding: "utf8",
  });
  const tarball = join(folder, packed.trim().split("\n").at(-1) ?? "");
  const home = join(folder, "node_modules/castellan");
  mkdirSync(home, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "--strip-components=1", "-C", home]);
  for (const name of readdirSync(join(root, "node_modules"))) {
    if (name.startsWith(".") || name === "node") continue;
    mkdirSync(dirname(join(folder, "node_modules", name)), { recursive: true });
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name));
  }
  return home;
}

test("the packed tarball runs in an empty folder: version, server, an answer", async () => {
  const home = install();
  const files = readdirSync(home, { recursive: true }).map(String);
  assert.ok(!files.some((file) => file.endsWith(".ts") || file.startsWith("test")), "sources and tests stay at home");
  assert.ok(files.includes("LICENSE") && files.includes("README.md"));
  const command = join(home, "bin/castellan");
  assert.match(execFileSync(process.execPath, [command, "--version"], { encoding: "utf8" }), /^\d+\.\d+\.\d+\n$/);

  const [port, opsPort] = [await freePort(), await freePort()];
  const state = join(mkdtempSync(join(tmpdir(), "castellan-pack-state-")), "state");
  const args = [
    ...["serve", "--port", String(port), "--ops-port", String(opsPort), "--state-dir", state],
    ...["--api-key", "k", "--threads", "1", "--log-level", "warn"],
  ];
  const child = spawn(process.execPath, [command, ...args], { stdio: "ignore", cwd: home });
  const exited = new Promise((done) => child.on("exit", done));
  try {
    await firstAnswer(child, port);
  } finally {
    child.kill("SIGTERM");
    await exited;
  }
  assert.equal(child.exitCode, 0);
});
