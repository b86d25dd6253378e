/**
 * The two servers under measurement: started on loopback with the same model, window, slots and threads; their CPU read
 * from /proc; ended by process id.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { MID } from "#test/fixtures/gguf.ts";
import { freePort, until } from "#test/harness.ts";

export interface Served {
  readonly name: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** CPU milliseconds of the server and all its processes since they started. */
  cpu(): number;
  /** Of its first process alone. */
  frontCpu(): number;
  /** Bytes of memory without the file of the weights: anonymous pages of all its processes, shared ones once. */
  memory(): number;
  stop(): Promise<void>;
}

export interface ServerShape {
  readonly model: string;
  readonly slots: number;
  readonly window: number;
  readonly threads: number;
}

const KEY = "bench";
const MS_PER_TICK = 10; // CLK_TCK is 100 on Linux

export async function startCastellan(shape: ServerShape, flags: readonly string[] = []): Promise<Served> {
  const [port, opsPort] = [await freePort(), await freePort()];
  const state = join(mkdtempSync(join(tmpdir(), "castellan-bench-")), "state");
  const args = ["serve", shape.model, "--port", port, "--ops-port", opsPort, "--state-dir", state, "--api-key", KEY];
  const sized = ["--max-num-seqs", shape.slots, "--max-model-len", shape.window, "--threads", shape.threads];
  // What users run: the built JavaScript (npm run bench:engine builds it).
  const main = resolve(import.meta.dirname, "../../dist/cli/main.js");
  const child = spawn(
    process.execPath,
    // As bin/castellan starts it.
    [
      "--max-semi-space-size=4",
      main,
      ...args,
      ...sized,
      "--served-model-name",
      "m",
      "--log-level",
      "warn",
      "--disable-access-log",
      ...flags,
    ].map(String),
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  return ready("castellan", child, port, { authorization: `Bearer ${KEY}` });
}

export async function startLlamaServer(binary: string, shape: ServerShape): Promise<Served> {
  const port = await freePort();
  const args = [
    "--model",
    shape.model,
    "--host",
    "127.0.0.1",
    "--port",
    port,
    "--parallel",
    shape.slots,
    "--ctx-size",
    shape.window * shape.slots,
  ];
  const sized = [
    "--threads",
    shape.threads,
    "--threads-batch",
    shape.threads,
    "--batch-size",
    2048,
    "--no-webui",
    "--log-disable",
  ];
  const child = spawn(binary, [...args, ...sized].map(String), { stdio: ["ignore", "ignore", "ignore"] });
  return ready("llama-server", child, port, {});
}

async function ready(
  name: string,
  child: ChildProcess,
  port: number,
  headers: Readonly<Record<string, string>>,
): Promise<Served> {
  const url = `http://127.0.0.1:${port}`;
  const exited = new Promise<void>((done) => child.on("exit", () => done()));
  await until(
    `${name} is ready`,
    async () => {
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
      return (await fetch(`${url}/health`).catch(() => undefined))?.status === 200;
    },
    180_000,
  );
  return {
    name,
    url,
    headers,
    cpu: () => treeOf(child.pid ?? -1).reduce((sum, { ticks }) => sum + ticks * MS_PER_TICK, 0),
    frontCpu: () => (readStat(String(child.pid))?.ticks ?? 0) * MS_PER_TICK,
    memory: () => treeOf(child.pid ?? -1).reduce((sum, { pid }) => sum + anonymousBytes(pid), 0),
    stop: async () => {
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
      await exited;
      clearTimeout(late);
    },
  };
}

interface Stat {
  readonly pid: number;
  readonly parent: number;
  readonly ticks: number;
}

function readStat(pid: string): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { pid: Number(pid), parent: Number(fields[1]), ticks: Number(fields[11]) + Number(fields[12]) };
  } catch {
    return undefined;
  }
}

function treeOf(root: number): Stat[] {
  const stats = readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .flatMap((name) => readStat(name) ?? []);
  const tree = new Set([root]);
  for (let grew = true; grew; ) {
    grew = false;
    for (const { pid, parent } of stats) {
      if (!tree.has(parent) || tree.has(pid)) continue;
      tree.add(pid);
      grew = true;
    }
  }
  return stats.filter(({ pid }) => tree.has(pid));
}

/** What the process alone would free, files that are only mapped aside. */
function anonymousBytes(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    return Number(/^Pss_Anon:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** Bytes of the KV cache of the 125M model (f16): the same for every server. */
export function kvBytesOf({ slots, window }: ServerShape): number {
  const head = (MID.width ?? 0) / (MID.heads ?? 1);
  return slots * window * (MID.layers ?? 0) * (MID.kvHeads ?? 0) * head * 2 * 2;
}

/** Busy CPU milliseconds of the whole machine since boot. */
export function machineCpu(): number {
  const fields = readFileSync("/proc/stat", "utf8").split("\n")[0]?.trim().split(/\s+/).slice(1).map(Number) ?? [];
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) * MS_PER_TICK;
}
