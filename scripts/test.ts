/**
 * Runs every test, and prints the runner's closing line of counts as the last thing.
 *
 * usage: node scripts/test.ts [pattern …]   without patterns: all of src, test and scripts
 * Two files at a time at most: engines compute on all cores, and spinning threads starve each other.
 * Temporary files of all of them are in one folder, which goes with the run: also those of a test that was killed.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, globSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const patterns = process.argv.slice(2);
const files = globSync(
  patterns.length > 0 ? patterns : ["src/**/*.test.ts", "test/**/*.test.ts", "scripts/**/*.test.ts"],
);
if (files.length === 0) {
  console.error("no tests were found");
  process.exit(1);
}
// A short name, as sockets are below it; open as /tmp is, as some tests run programs as other users.
const scratch = mkdtempSync(join(tmpdir(), "cst-"));
chmodSync(scratch, 0o1777);
const run = spawn(
  process.execPath,
  ["--test", "--test-concurrency=2", "--test-timeout=240000", "--test-reporter=./scripts/reporter.ts", ...files.sort()],
  { stdio: "inherit", env: { ...process.env, TMPDIR: scratch } },
);
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => run.kill(signal));
const [code] = await once(run, "exit");
rmSync(scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
process.exit(typeof code === "number" ? code : 1);
