/**
 * Starts engine processes. The tokenizer helper apart (native/tokenizer-launcher.ts), nothing else makes a process.
 *
 * The child gets the environment it is given and nothing else (the parent's holds secrets), speaks over the IPC
 * channel, and its stderr (where native code writes before it aborts) goes to the log line by line, bounded.
 * Called by the app (startEngine) and by supervisor.ts (launchProcess, to restart).
 */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { EngineLimits } from "./engine.ts";
import { Fleet } from "./fleet.ts";
import {
  type Command,
  type GeneratingInit,
  type KernelInit,
  MessageError,
  type Notice,
  type OperatedMessage,
  type ProcessLimits,
  readNotice,
  type StepMessage,
} from "./messages.ts";
import type { EngineHandle, EngineOptions, LogFunction } from "./options.ts";

const MAX_LOG_LINE = 2000;
/**
 * glibc else takes freed large blocks as a reason to keep such blocks in its heap from then on: a KV cache that sleep
 * has given back would stay with the process, about 3 MiB more each time (measured: 300 MiB after 120 rounds).
 */
const GIVES_BACK = { MALLOC_MMAP_THRESHOLD_: String(2 ** 20) };

/** The engine did not get to work. The message is the child's own reason where it gave one. */
export class EngineStartError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "EngineStartError";
  }
}

export interface LaunchOptions {
  readonly kernel: KernelInit;
  readonly draft?: GeneratingInit;
  readonly limits: EngineLimits;
  readonly startTimeoutMs: number;
  /** The child's whole environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Node options for the child. */
  readonly execArgv?: readonly string[];
  readonly log?: LogFunction;
}

export interface LaunchHandlers {
  onStep(message: StepMessage): void;
  /** What came of a command that asked. */
  onAnswer(ask: number, error: string | undefined): void;
  onOperated(message: OperatedMessage): void;
  /** The process is gone; said once, and only after `launchProcess` resolved. */
  onExit(reason: string): void;
}

export interface EngineProcess {
  readonly pid: number;
  readonly limits: ProcessLimits;
  send(command: Command): void;
  kill(): void;
  readonly exited: Promise<void>;
}

/** Starts the process and waits until its kernel is open. @throws EngineStartError */
export async function launchProcess(
  options: LaunchOptions,
  handlers: LaunchHandlers,
  signal: AbortSignal,
): Promise<EngineProcess> {
  const child = spawnEngine(options);
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, by) => resolve(by === null ? `exit code ${code}` : `signal ${by}`));
  });
  forwardStderr(child, options.log);
  const abort = () => child.kill("SIGKILL");
  signal.addEventListener("abort", abort, { once: true });
  try {
    const { kernel, draft } = options;
    send(child, { type: "init", kernel, ...(draft === undefined ? {} : { draft }), limits: options.limits });
    const limits = await waitReady(child, exited, options.startTimeoutMs);
    connect(child, handlers, exited);
    return {
      pid: child.pid as number,
      limits,
      send: (command) => send(child, command),
      kill: () => void child.kill("SIGKILL"),
      exited: exited.then(() => {}),
    };
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function spawnEngine(options: LaunchOptions): ChildProcess {
  const entry = import.meta.url.endsWith(".ts") ? "./process.ts" : "./process.js";
  return fork(fileURLToPath(new URL(entry, import.meta.url)), [], {
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    env: { ...GIVES_BACK, ...options.env },
    execArgv: [...(options.execArgv ?? [])],
  });
}

/** A message to a process that is going away is lost; its exit says the rest. */
function send(child: ChildProcess, command: Command): void {
  if (child.connected) child.send(command, () => {});
}

function waitReady(child: ChildProcess, exited: Promise<string>, timeoutMs: number): Promise<ProcessLimits> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(`the engine was not ready after ${timeoutMs} ms`), timeoutMs);
    const fail = (message: string) => {
      clearTimeout(timer);
      reject(new EngineStartError(message));
    };
    child.once("message", (value: unknown) => {
      clearTimeout(timer);
      try {
        const notice: Notice = readNotice(value);
        if (notice.type === "ready") resolve(notice.limits);
        else fail(notice.type === "refused" ? notice.message : "the engine spoke out of turn");
      } catch (error) {
        fail(String(error));
      }
    });
    exited.then((reason) => fail(`the engine ended while it started: ${reason}`));
  });
}

/** Messages that are read after the exit belong to a life that is over: they are dropped. */
function connect(child: ChildProcess, handlers: LaunchHandlers, exited: Promise<string>): void {
  let gone = false;
  let problem: string | undefined;
  child.on("message", (value: unknown) => {
    if (gone) return;
    const notice = tryRead(value);
    if (notice instanceof MessageError) {
      problem ??= notice.message;
      child.kill("SIGKILL");
    } else if (notice.type === "step") handlers.onStep(notice);
    else if (notice.type === "answer") handlers.onAnswer(notice.ask, notice.error);
    else handlers.onOperated(notice);
  });
  exited.then((reason) => {
    gone = true;
    handlers.onExit(problem ?? reason);
  });
}

type Later = Extract<Notice, { type: "step" | "answer" | "operated" }>;

/** The notice, or what is wrong with it. */
function tryRead(value: unknown): Later | MessageError {
  try {
    const notice = readNotice(value);
    if (notice.type === "ready" || notice.type === "refused")
      return new MessageError(`a ${notice.type} message out of turn`);
    return notice;
  } catch (error) {
    return new MessageError(String(error));
  }
}

function forwardStderr(child: ChildProcess, log: LogFunction | undefined): void {
  let rest = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = (lines.pop() ?? "").slice(0, MAX_LOG_LINE);
    for (const line of lines) if (line !== "") log?.("warn", line.slice(0, MAX_LOG_LINE), { source: "engine" });
  });
}

/**
 * Starts the engines and stays their supervisor: a crash or a hang restarts one, for as long as the handle is open.
 * @throws EngineStartError when a first start fails (no retries: the model or the machine is wrong)
 */
export async function startEngine(options: EngineOptions): Promise<EngineHandle> {
  const fleet = new Fleet(options, launchProcess);
  await fleet.start();
  return fleet;
}
