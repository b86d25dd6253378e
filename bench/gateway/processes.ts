/**
 * The processes of the bench: the mock upstream and the client on core 0, whoever is measured on core 1.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import { createInterface } from "node:readline";
import { busySeconds, cpuOf, memoryOf, stolenSeconds, treeOf } from "./measure.ts";

export const LOAD_CORE = 0;
export const PROXY_CORE = 1;

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

export function start(
  core: number,
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): ChildProcess {
  return spawn("taskset", ["-c", String(core), command, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
  });
}

export async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  const late = setTimeout(() => child.kill("SIGKILL"), 3000);
  await once(child, "exit");
  clearTimeout(late);
}

/** Until something listens. */
export async function listening(port: number): Promise<void> {
  for (let i = 0; i < 300; i++) {
    const socket = createConnection({ host: "127.0.0.1", port });
    const open = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true));
      socket.once("error", () => resolve(false));
    });
    socket.destroy();
    if (open) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`nothing listens on ${port}`);
}

export function compile(source: string, target: string): void {
  execFileSync("gcc", ["-O2", "-o", target, source], { stdio: "inherit" });
}

export interface Load {
  readonly mode: "sat" | "rate" | "sse" | "hold";
  readonly port: number;
  readonly seconds: number;
  readonly connections: number;
  /** File with the body. */
  readonly body: string;
  /** Further header lines, each with its `\r\n`. */
  readonly headers: string;
  readonly rate?: number;
  /** Seconds before anything counts; absent: one. */
  readonly settle?: number;
  /** Where the client runs; absent: where the load does. */
  readonly core?: number;
}

export interface Ran {
  readonly done: number;
  readonly seconds: number;
  readonly errors: number;
  readonly badStatus: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
  /** CPU microseconds of the measured process per request or event. */
  readonly cpu: number | undefined;
  /** Cores that others used meanwhile. */
  readonly foreign: number;
  /** Share of the measured core that the host gave to somebody else meanwhile. */
  readonly stolen: number;
  /** Bytes of the measured process: the median of looks while all is under way, as the last may see the client's end. */
  readonly resident: number;
}

/** @param pid the measured process. @param steady called when all is under way */
export async function drive(
  client: string,
  { mode, port, seconds, connections, body, headers, rate, settle, core = LOAD_CORE }: Load,
  pid: number | undefined,
  steady: () => void = () => {},
): Promise<Ran> {
  const args = [
    mode,
    port,
    seconds,
    connections,
    body,
    headers.replaceAll("\r\n", "\\r\\n"),
    rate ?? 0,
    settle ?? 1,
  ].map(String);
  const child = start(core, client, args);
  const look = () => ({
    cpu: pid === undefined ? 0 : cpuOf(pid),
    // One after the other: a process that has ended is in neither.
    others: busySeconds() - cpuOf(process.pid) / 1e9,
    stolen: stolenSeconds(PROXY_CORE),
  });
  let before = look();
  let result: Omit<Ran, "cpu" | "foreign" | "stolen" | "resident"> | undefined;
  let isSteady = false;
  let tree: readonly number[] = [];
  const looks: number[] = [];
  let after = before;
  const watch = setInterval(() => {
    if (isSteady && pid !== undefined) looks.push(memoryOf(tree));
  }, 100);
  for await (const line of createInterface({ input: child.stdout as NonNullable<typeof child.stdout> })) {
    if (line === "steady") {
      if (pid !== undefined) tree = treeOf(pid);
      before = look();
      isSteady = true;
      steady();
    } else {
      isSteady = false;
      after = look();
      result = JSON.parse(line);
    }
  }
  clearInterval(watch);
  if (result === undefined) throw new Error(`the client gave no result (${mode} on ${port})`);
  const cpu = pid === undefined ? undefined : (after.cpu - before.cpu) / 1000 / result.done;
  const foreign = Math.max(0, after.others - before.others) / result.seconds;
  const stolen = (after.stolen - before.stolen) / result.seconds;
  looks.sort((a, b) => a - b);
  return { ...result, cpu, foreign, stolen, resident: looks[looks.length >> 1] ?? 0 };
}
