import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { withLock } from "./lock.ts";

const told = (): never => assert.fail("somebody is said to hold it");

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "castellan-lock-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "lock");
}

const textOf = (pid: number | undefined): string => `${hostname()}\n${pid}\nmark\n`;

function ago(path: string, seconds: number): void {
  const then = new Date(Date.now() - seconds * 1000);
  utimesSync(path, then, then);
}

test("a lock of a process that is gone is taken at once, and is gone when the work is done", async (t) => {
  const path = scratch(t);
  writeFileSync(path, textOf(spawnSync(process.execPath, ["-e", ""]).pid));
  assert.equal(await withLock(path, { onWait: told }, async () => existsSync(path)), true);
  assert.equal(existsSync(path), false);
});

test("a lock whose maker died before it wrote its name is taken", async (t) => {
  const path = scratch(t);
  writeFileSync(path, "");
  ago(path, 6);
  assert.equal(await withLock(path, { onWait: told }, async () => 1), 1);
});

test("a lock without a name yet is waited for, and nobody is said to hold it until it says so", async (t) => {
  const path = scratch(t);
  writeFileSync(path, "");
  const controller = new AbortController();
  let named = false;
  let saidSo = (): void => {};
  const said = new Promise<void>((done) => {
    saidSo = done;
  });
  const onWait = (): void => {
    assert.ok(named, "it has a name");
    saidSo();
  };
  const waiting = withLock(path, { onWait, signal: controller.signal }, async () => assert.fail("it is held"));
  const ended = assert.rejects(waiting, { name: "AbortError" });
  // Long enough for a look at it or two.
  await wait(250);
  named = true;
  // Whoever runs the tests lives.
  writeFileSync(path, textOf(process.ppid));
  await said;
  controller.abort();
  await ended;
});
