/**
 * What a process costs, as the kernel counts it, and what else the machine did meanwhile.
 */
import { readdirSync, readFileSync } from "node:fs";
import { cpus } from "node:os";

/** Clock ticks of /proc/stat a second. */
const TICKS = 100;

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** A process and all that it has started. */
export function treeOf(root: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const parent = Number(/\) \S (\d+)/.exec(read(`/proc/${name}/stat`) ?? "")?.[1] ?? 0);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}

/** Nanoseconds that the threads of the tree have run. */
export function cpuOf(root: number): number {
  let sum = 0;
  for (const pid of treeOf(root)) for (const thread of threadsOf(pid)) sum += ran(pid, thread);
  return sum;
}

/** Nanoseconds. */
function ran(pid: number, thread: string): number {
  return Number((read(`/proc/${pid}/task/${thread}/schedstat`) ?? "0").split(" ")[0]);
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Resident bytes. @param pids a tree's: to look for it each time takes longer than an answer may */
export function memoryOf(pids: readonly number[]): number {
  const kib = pids.map((pid) => Number(/^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? "")?.[1] ?? 0));
  return kib.reduce((a, b) => a + b, 0) * 1024;
}

/**
 * CPU seconds of all processes that there are, the kernel's own among them. Not by /proc/stat, which looks at each tick who
 * is at work, and so takes whom a timer wakes with the tick to be so all the time.
 */
export function busySeconds(): number {
  let sum = 0;
  for (const name of readdirSync("/proc"))
    if (/^\d+$/.test(name)) for (const thread of threadsOf(Number(name))) sum += ran(Number(name), thread);
  return sum / 1e9;
}

/** Seconds that the host kept from a core. */
export function stolenSeconds(core: number): number {
  const line = new RegExp(`^cpu${core} (.*)$`, "m").exec(read("/proc/stat") ?? "")?.[1] ?? "";
  return Number(line.split(" ")[7] ?? 0) / TICKS;
}

export function machine(): object {
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    kernel: read("/proc/sys/kernel/osrelease")?.trim(),
    node: process.version,
  };
}
