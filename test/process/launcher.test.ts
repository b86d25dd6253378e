/**
 * How the launcher starts Node: with what a gateway's memory needs, less where the operator says so, and on one core with
 * no helpers that take its turns.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { test } from "node:test";

const COMMAND = resolve(import.meta.dirname, "../../bin/castellan");
const GATEWAY = ["serve", "--upstream", "http://127.0.0.1:9", "--help"];
/** Told by each process that starts; the last is the server's. */
const TELLS = `data:text/javascript,${encodeURIComponent(
  `process.on("exit", () => process.stderr.write("told " + JSON.stringify([process.execArgv, Object.fromEntries(
    Object.entries(process.env).filter(([name]) => name.startsWith("MALLOC_") || name === "GLIBC_TUNABLES"))]) + "\\n"))`,
)}`;

interface Started {
  readonly flags: readonly string[];
  readonly memory: Readonly<Record<string, string>>;
}

function started(args: readonly string[], cores = "0-1023", env: Record<string, string> = {}): Started {
  const all = execFileSync("sh", ["-c", 'exec taskset -c "$0" "$@" 2>&1', cores, COMMAND, ...args], {
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NODE_OPTIONS: `--import=${TELLS}`, ...env },
    encoding: "utf8",
  });
  const told = all.split("\n").filter((line) => line.startsWith("told "));
  const [flags, memory] = JSON.parse(told.at(-1)?.slice("told ".length) ?? "") as [string[], Started["memory"]];
  return { flags, memory };
}

/** One core of those that this process may use. */
function oneCore(): string {
  const list = execFileSync("taskset", ["-pc", String(process.pid)], { encoding: "utf8" });
  return /(\d+)[^:]*$/.exec(list.slice(list.lastIndexOf(":")))?.[1] ?? "0";
}

test("a gateway's calls are not made old at once, and its old generation stays small", () => {
  const gateway = started(GATEWAY);
  for (const flag of ["--no-allocation-site-pretenuring", "--heap-growing-percent=20", "--max-semi-space-size=8"])
    assert.ok(gateway.flags.includes(flag), flag);
  assert.deepEqual(gateway.memory, {
    MALLOC_ARENA_MAX: "1",
    MALLOC_MMAP_THRESHOLD_: "4194304",
    MALLOC_TRIM_THRESHOLD_: "33554432",
    GLIBC_TUNABLES: "glibc.malloc.hugetlb=1",
  });
  const engine = started(["serve", "--help"]);
  assert.ok(!engine.flags.some((flag) => /pretenuring|growing/.test(flag)), "an engine's server is as V8 has it");
  assert.deepEqual(engine.memory, { MALLOC_ARENA_MAX: "1" });
});

test("on one core the main thread marks and compiles by itself", () => {
  const alone = started(GATEWAY, oneCore());
  for (const flag of ["--no-concurrent-marking", "--no-parallel-marking", "--no-concurrent-recompilation"])
    assert.ok(alone.flags.includes(flag), flag);
  const engine = started(["serve", "--help"], oneCore());
  assert.ok(!engine.flags.includes("--no-concurrent-recompilation"));
});

test("what the operator has set stays", () => {
  const gateway = started(GATEWAY, "0-1023", { MALLOC_TRIM_THRESHOLD_: "131072" });
  assert.equal(gateway.memory["MALLOC_TRIM_THRESHOLD_"], "131072");
});
