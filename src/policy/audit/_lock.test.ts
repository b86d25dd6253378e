/**
 * The lock among processes: one has it, whatever else of the same process looks at it.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ProcessLock } from "./_lock.ts";

const ASK = `
  const { ProcessLock } = await import(process.argv[1]);
  console.log(new ProcessLock(process.argv[2]).tryTake());
`;

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "castellan-lock-"));
  t.after(() => rmSync(made, { recursive: true }));
  return made;
}

function anotherProcessTakes(directory: string): boolean {
  const module = new URL("./_lock.ts", import.meta.url).href;
  const flags = ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", ASK];
  return (
    execFileSync(process.execPath, [...flags, module, directory])
      .toString()
      .trim() === "true"
  );
}

test("who has it keeps it while others of the same process come and go", (t) => {
  const directory = folder(t);
  const lock = new ProcessLock(directory);
  assert.ok(lock.tryTake());
  const other = new ProcessLock(directory);
  assert.equal(other.tryTake(), false);
  other.close();
  assert.equal(anotherProcessTakes(directory), false);
  lock.release();
  assert.equal(anotherProcessTakes(directory), true);
  lock.close();
});

test("a link is no lock", (t) => {
  const directory = folder(t);
  symlinkSync("/dev/null", join(directory, "lock"));
  assert.throws(() => new ProcessLock(directory), { code: "EACCES" });
});
