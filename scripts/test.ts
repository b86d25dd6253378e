/**
 * Runs every test, and prints the runner's closing line of counts as the last thing.
 *
 * usage: node scripts/test.ts [pattern …]   without patterns: all of src, test and scripts
 * Two files at a time at most: engines compute on all cores, and spinning threads starve each other.
 */
import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";

const patterns = process.argv.slice(2);
const files = globSync(
  patterns.length > 0 ? patterns : ["src/**/*.test.ts", "test/**/*.test.ts", "scripts/**/*.test.ts"],
);
if (files.length === 0) {
  console.error("no tests were found");
  process.exit(1);
}
const run = spawnSync(
  process.execPath,
  ["--test", "--test-concurrency=2", "--test-timeout=240000", "--test-reporter=./scripts/reporter.ts", ...files.sort()],
  { stdio: "inherit" },
);
process.exit(run.status ?? 1);
