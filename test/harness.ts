/**
 * Starts the real server, as a user does, on loopback ports that were free a moment ago, with a state directory
 * of its own; and ends what it started, by process id.
 *
 * Every wait is bounded and waits for a condition, never for a time.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Role } from "#core/principal.ts";
import type { KeySpec } from "#policy/key-spec.ts";
import { KeyStore } from "#policy/key-store.ts";
import { openPepper } from "#policy/pepper.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore } from "#policy/store/store.ts";

const ROOT = resolve(import.meta.dirname, "..");
export const TEST_KEY = "test-key-for-the-suite";
export const DEMO_MODEL = join(ROOT, "assets/demo/castellan-demo.gguf");

export interface ServerOptions {
  readonly model?: string;
  readonly args?: readonly string[];
  /** Absent: TEST_KEY. null: none, so that the server mints one. */
  readonly apiKey?: string | null;
  readonly env?: Readonly<Record<string, string>>;
  readonly stateDir?: string;
  /** Of a server that was there before. */
  readonly port?: number;
  /** Wait until /health answers 200; true unless said. */
  readonly waitReady?: boolean;
}

export interface TestServer {
  readonly url: string;
  readonly opsUrl: string;
  readonly port: number;
  readonly stateDir: string;
  /** Of an administrator; "" where the server has to make its first key itself. */
  readonly adminKey: string;
  readonly child: ChildProcess;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Resolves with the exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
  fetch(path: string, init?: RequestInit & { key?: string | null }): Promise<Response>;
  /** Process ids of the server's descendants (the engine among them). */
  descendants(): number[];
  stop(): Promise<void>;
}

/**
 * Below those that the system gives to connections without one (on Linux from 32768), so that nobody's connection has it
 * by the time the server wants it. Each process of the suite begins somewhere else, and none gives one twice.
 */
const PORTS = { first: 10_240, count: 22_000 } as const;
let lastPort = randomInt(PORTS.count);

export async function freePort(): Promise<number> {
  for (let tries = 0; tries < PORTS.count; tries++) {
    lastPort = (lastPort + 1) % PORTS.count;
    const port = PORTS.first + lastPort;
    if (await isFree(port)) return port;
  }
  throw new Error("no port is free");
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((done) => {
    server.once("error", () => done(false));
    server.listen(port, "127.0.0.1", () => server.close(() => done(true)));
  });
}

/** Waits for a condition; at most `limitMs`. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 60_000,
): Promise<void> {
  const end = Date.now() + limitMs;
  while (Date.now() < end) {
    if (await condition()) return;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error(`waited ${limitMs} ms in vain: ${what}`);
}

export async function startServer(options: ServerOptions = {}): Promise<TestServer> {
  const [port, opsPort] = [options.port ?? (await freePort()), await freePort()];
  const folder = options.stateDir ?? mkdtempSync(join(tmpdir(), "castellan-test-"));
  const stateDir = options.stateDir ?? join(folder, "state");
  const adminKey = options.apiKey === null ? "" : await makeKey(stateDir, "admin");
  const child = spawn(process.execPath, commandLine(options, port, opsPort, stateDir), {
    cwd: ROOT,
    env: { PATH: process.env["PATH"], HOME: process.env["HOME"], TMPDIR: tmpdir(), NO_COLOR: "1", ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const server = describe(child, port, opsPort, { folder, stateDir }, adminKey);
  if (options.waitReady ?? true) await ready(server);
  return server;
}

/** A key in the store of a server that may run or not. */
export async function makeKey(stateDir: string, role: Role, more: Partial<KeySpec> = {}): Promise<string> {
  const state = openStateDirectory(stateDir);
  const store = await openStore({ state });
  try {
    const keys = new KeyStore(store, await openPepper(store, state));
    const spec: KeySpec = { tenant: "default", name: "test", role, reach: {}, limits: {}, caps: {}, ...more };
    return (await keys.create(spec, "test")).key.expose();
  } finally {
    await store.close();
  }
}

function commandLine(options: ServerOptions, port: number, opsPort: number, stateDir: string): string[] {
  const key = options.apiKey === undefined ? TEST_KEY : options.apiKey;
  return [
    join(ROOT, "src/cli/main.ts"),
    "serve",
    ...(options.model === undefined ? [] : [options.model]),
    "--port",
    String(port),
    "--ops-port",
    String(opsPort),
    "--state-dir",
    stateDir,
    // Threads that wait spin: with several servers on few cores they would starve each other.
    "--threads",
    "1",
    "--log-level",
    "warn",
    ...(key === null ? [] : ["--api-key", key]),
    ...(options.args ?? []),
  ];
}

/** @param folder what goes when the server is stopped, with the state directory in it */
function describe(
  child: ChildProcess,
  port: number,
  opsPort: number,
  { folder, stateDir }: { readonly folder: string; readonly stateDir: string },
  adminKey: string,
): TestServer {
  const out = collect(child.stdout);
  const err = collect(child.stderr);
  const exited = new Promise<number | string>((done) => child.on("exit", (code, signal) => done(signal ?? code ?? -1)));
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    opsUrl: `http://127.0.0.1:${opsPort}`,
    port,
    stateDir,
    adminKey,
    child,
    stdout: out,
    stderr: err,
    exited,
    fetch: (path, init = {}) => {
      const { key = TEST_KEY, ...rest } = init;
      const headers = new Headers(rest.headers);
      if (key !== null) headers.set("authorization", `Bearer ${key}`);
      if (rest.body !== undefined && !headers.has("content-type")) headers.set("content-type", "application/json");
      return fetch(path.startsWith("http") ? path : url + path, { ...rest, headers });
    },
    descendants: () => descendantsOf(child.pid ?? -1),
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await exited;
      // What the server started may be writing its last words there.
      rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    },
  };
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = "";
  stream?.on("data", (chunk) => {
    text += String(chunk);
  });
  return () => text;
}

async function ready(server: TestServer): Promise<void> {
  let gone: number | string | undefined;
  server.exited.then((how) => {
    gone = how;
  });
  await until("the server is ready", async () => {
    if (gone !== undefined) throw new Error(`the server ended (${gone}):\n${server.stderr()}\n${server.stdout()}`);
    try {
      return (await fetch(`${server.url}/health`)).status === 200;
    } catch {
      return false;
    }
  });
}

/** Reads the process table of /proc; children of children as well. */
function descendantsOf(pid: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
    } catch {
      // It ended while we looked.
    }
  }
  const found = [pid];
  for (let i = 0; i < found.length; i++)
    for (const [child, parent] of parents) if (parent === found[i]) found.push(child);
  return found.slice(1);
}
