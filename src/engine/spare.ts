/**
 * Makes engine processes, and one of them ahead of its time: a process needs a while until it reads its first message,
 * and the command line, the settings and the model's header can be read meanwhile.
 *
 * Invariant: a process knows nothing of a model before its `init` message, and gets the environment it is given and
 * nothing else (the parent's holds secrets; Wall: T17). At most one spare is kept. Imports nothing of weight, as it is
 * the first thing that a server loads. Called by cli/ (prepareEngine, discardEngine) and by launcher.ts.
 */
import { type ChildProcess, fork } from "node:child_process";
import { entryUrl } from "#base/entry.ts";

export interface SpawnOptions {
  /** The child's whole environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Node options for the child. */
  readonly execArgv?: readonly string[];
}

export interface SpawnedEngine {
  readonly child: ChildProcess;
  /** Resolves with what ended it. */
  readonly exited: Promise<string>;
}

/** The argument that has a process load the bindings of the native kernels while it waits for its `init`. */
export const NATIVE = "native";

/**
 * For glibc. Large blocks are given back when they are freed: it else takes that as a reason to keep such blocks in its
 * heap from then on, and a KV cache that sleep has given back would stay with the process, about 3 MiB more each time
 * (measured: 300 MiB after 120 rounds). And they are made of huge pages where the system leaves that to the program: a
 * KV cache of 192 MiB is zeroed in 30 ms instead of 140.
 */
const MALLOC = { MALLOC_MMAP_THRESHOLD_: String(2 ** 20), GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" };

/**
 * MiB of each half of the young generation, where V8 would take up to 16: a step leaves little behind, and what the
 * heap has once taken stays with the process.
 */
const HEAP = ["--max-semi-space-size=4"];

let spare: { readonly engine: SpawnedEngine; readonly made: string } | undefined;

/** Starts the spare, for a native kernel. */
export function prepareEngine(options: SpawnOptions): void {
  spare ??= { engine: spawn(options, [NATIVE]), made: madeOf(options) };
}

/** Ends a spare that nobody took. */
export function discardEngine(): void {
  spare?.engine.child.kill("SIGKILL");
  spare = undefined;
}

/** The spare, if it is made of the same and lives, else a new one. */
export function spawnEngine(options: SpawnOptions): SpawnedEngine {
  const ready = spare;
  if (ready === undefined || ready.made !== madeOf(options)) return spawn(options, []);
  spare = undefined;
  const { exitCode, signalCode, connected } = ready.engine.child;
  return exitCode === null && signalCode === null && connected ? ready.engine : spawn(options, []);
}

function madeOf({ env = {}, execArgv = [] }: SpawnOptions): string {
  return JSON.stringify([Object.entries(env), execArgv]);
}

function spawn({ env, execArgv }: SpawnOptions, args: readonly string[]): SpawnedEngine {
  const child = fork(entryUrl("engine/process"), args, {
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    env: { ...MALLOC, ...env },
    execArgv: [...HEAP, ...(execArgv ?? [])],
  });
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, by) => resolve(by === null ? `exit code ${code}` : `signal ${by}`));
  });
  return { child, exited };
}
