/**
 * A vLLM that this server started: watched, started again when it ends or does not come up, and ended with it.
 *
 * Invariants: it is the leader of a process group of its own, and the whole group goes when it goes, so that no worker
 * keeps a GPU; one that an earlier life of this server left behind is ended before the next is started; what it prints
 * goes to the log, line by line, without secrets, bounded. Made by the server's start; nothing else starts a vLLM.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import type { Log } from "#base/log.ts";
import type { Redact } from "#base/redact.ts";
import { Backoff } from "#engine/backoff.ts";
import type { StateDirectory } from "#policy/state.ts";
import type { VllmPlan } from "./plan.ts";

const MAX_LOG_LINE = 2000;
const FIRST_RESTART_MS = 1000;
const PROBE_MS = 500;
const PID_FILE = "vllm.pid";

export interface ManagedVllmOptions {
  readonly plan: VllmPlan;
  /** Where the process's number is kept, for the next life. */
  readonly state: StateDirectory;
  /** Whether it answers. Never throws. */
  readonly probe: () => Promise<boolean>;
  readonly startTimeoutMs: number;
  /** Before a line is cut: half a secret looks like none. */
  readonly redact: Redact;
  readonly log: Log;
}

export type VllmState = "starting" | "ready" | "restarting" | "stopped";

export class ManagedVllm {
  readonly #options: ManagedVllmOptions;
  readonly #backoff = new Backoff(FIRST_RESTART_MS);
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #state: VllmState = "starting";
  #restarts = 0;
  #stopping = false;

  constructor(options: ManagedVllmOptions) {
    this.#options = options;
  }

  get state(): VllmState {
    return this.#state;
  }

  get restarts(): number {
    return this.#restarts;
  }

  /** Resolves once the program runs, long before it answers. @throws Error it cannot be started at all */
  async start(): Promise<void> {
    endLeftover(this.#options.state, this.#options.log);
    await this.#launch();
  }

  /** SIGTERM to vLLM itself, which drains; whatever of its group is there after `graceMs` is killed. Idempotent. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    this.#backoff.cancel();
    const child = this.#child;
    this.#state = "stopped";
    if (child?.pid === undefined) return;
    child.kill("SIGTERM");
    await Promise.race([this.#exited, wait(graceMs, undefined, { ref: false })]);
    killGroup(child.pid);
    await this.#exited;
    this.#options.state.write(PID_FILE, Buffer.from(""));
  }

  async #launch(): Promise<void> {
    const { plan, state, redact, log } = this.#options;
    const child = spawn(plan.command, [...plan.words], {
      env: { ...plan.environment },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    // From here on an error is one of killing it, and its exit says the rest.
    child.on("error", () => {});
    const pid = child.pid as number;
    state.write(PID_FILE, Buffer.from(`${pid} ${startedAt(pid) ?? ""}`));
    for (const stream of [child.stdout, child.stderr])
      if (stream !== null)
        createInterface({ input: stream }).on("line", (line) =>
          log("info", "vllm", { line: redact(line).slice(0, MAX_LOG_LINE) }),
        );
    this.#exited = new Promise((resolve) => child.once("exit", () => resolve()));
    child.once("exit", (code, signal) => this.#onExit(pid, signal ?? code ?? "unknown"));
    void this.#watch(child);
  }

  #onExit(pid: number, how: string | number): void {
    killGroup(pid);
    if (this.#stopping) return;
    this.#options.log("error", "vLLM ended and is started again", { how });
    this.#state = "restarting";
    this.#restarts++;
    this.#backoff.schedule(() => {
      this.#launch().catch((error: unknown) => {
        this.#options.log("error", "vLLM cannot be started", { reason: String(error) });
        this.#onExit(pid, "not started");
      });
    });
  }

  /** Until it answers; one that never does is ended, which starts the next. */
  async #watch(child: ChildProcess): Promise<void> {
    const { probe, startTimeoutMs, log } = this.#options;
    const until = performance.now() + startTimeoutMs;
    while (child.exitCode === null && child.signalCode === null && !this.#stopping) {
      if (await probe()) {
        this.#state = "ready";
        this.#backoff.progress();
        log("info", "vLLM answers", {});
        return;
      }
      if (performance.now() > until) {
        log("error", "vLLM did not answer in time", { seconds: startTimeoutMs / 1000 });
        if (child.pid !== undefined) killGroup(child.pid);
        return;
      }
      await wait(PROBE_MS, undefined, { ref: false });
    }
  }
}

/** A server that was killed could not end what it had started. */
function endLeftover(state: StateDirectory, log: Log): void {
  const [pid, since] = (state.read(PID_FILE)?.toString() ?? "").split(" ");
  // The number may be somebody else's by now: when it began tells.
  if (
    pid === undefined ||
    !/^\d+$/.test(pid) ||
    since === undefined ||
    since === "" ||
    startedAt(Number(pid)) !== since
  )
    return;
  log("warn", "a vLLM of an earlier life is ended", { pid: Number(pid) });
  killGroup(Number(pid));
}

/** Clock ticks from boot to the process's start (proc(5), stat, field 22); undefined: there is none. */
function startedAt(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It is gone.
  }
}
