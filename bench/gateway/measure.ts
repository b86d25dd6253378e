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
  for (const pid of treeOf(root))
    for (const thread of threadsOf(pid))
      sum += Number((read(`/proc/${pid}/task/${thread}/schedstat`) ?? "0").split(" ")[0]);
  return sum;
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
}

/** Resident bytes of the tree. */
export function memoryOf(root: number): number {
  const kib = treeOf(root).map((pid) => Number(/^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`) ?? "")?.[1] ?? 0));
  return kib.reduce((a, b) => a + b, 0) * 1024;
}

/** CPU seconds of the whole machine so far, idle and waiting aside. */
export function busySeconds(): number {
  const [line = ""] = (read("/proc/stat") ?? "").split("\n", 1);
  const [, user = 0, nice = 0, system = 0, , , irq = 0, soft = 0] = line.split(/\s+/).map(Number);
  return (user + nice + system + irq + soft) / TICKS;
}

export function machine(): object {
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    kernel: read("/proc/sys/kernel/osrelease")?.trim(),
    node: process.version,
  };
}
