/**
 * Starts engine processes; spare.ts makes them. The tokenizer helper apart (native/tokenizer-launcher.ts), nothing else
 * makes a process.
 *
 * The child gets the environment it is given and nothing else (the parent's holds secrets), speaks over the IPC
 * channel, and its stderr (where native code writes before it aborts) goes to the log line by line, bounded.
 * Called by the app (startEngine) and by supervisor.ts (launchProcess, to restart).
 */
import type { ChildProcess } from "node:child_process";
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
import { type SpawnOptions, spawnEngine } from "./spare.ts";

const MAX_LOG_LINE = 2000;
/** The engine did not get to work. The message is the child's own reason where it gave one. */
export class EngineStartError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "EngineStartError";
  }
}

export interface LaunchOptions extends SpawnOptions {
  readonly kernel: KernelInit;
  readonly draft?: GeneratingInit;
  readonly limits: EngineLimits;
  readonly startTimeoutMs: number;
  readonly log?: LogFunction;
}

export interface LaunchHandlers {
  /** The model's file was opened there and its vocabulary tried; said before the process is ready, or never. */
  onTried?(): void;
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
  const { child, exited } = spawnEngine(options);
  forwardStderr(child, options.log);
  const abort = () => child.kill("SIGKILL");
  signal.addEventListener("abort", abort, { once: true });
  try {
    const { kernel, draft } = options;
    send(child, { type: "init", kernel, ...(draft === undefined ? {} : { draft }), limits: options.limits });
    const limits = await waitReady(child, exited, options.startTimeoutMs, handlers);
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

/** A message to a process that is going away is lost; its exit says the rest. */
function send(child: ChildProcess, command: Command): void {
  if (child.connected) child.send(command, () => {});
}

function waitReady(
  child: ChildProcess,
  exited: Promise<string>,
  timeoutMs: number,
  handlers: LaunchHandlers,
): Promise<ProcessLimits> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => fail(`the engine was not ready after ${timeoutMs} ms`), timeoutMs);
    const settled = () => {
      clearTimeout(timer);
      child.off("message", read);
    };
    const fail = (message: string) => {
      settled();
      reject(new EngineStartError(message));
    };
    let tried = false;
    const read = (value: unknown) => {
      const notice = tryRead(value);
      if (notice instanceof MessageError) fail(notice.message);
      else if (notice.type === "tried" && !tried) {
        tried = true;
        handlers.onTried?.();
      } else if (notice.type === "ready") {
        settled();
        resolve(notice.limits);
      } else fail(notice.type === "refused" ? notice.message : "the engine spoke out of turn");
    };
    child.on("message", read);
    exited.then((reason) => fail(`the engine ended while it started: ${reason}`));
  });
}

/** Messages that are read after the exit belong to a life that is over: they are dropped. */
function connect(child: ChildProcess, handlers: LaunchHandlers, exited: Promise<string>): void {
  let gone = false;
  let problem: string | undefined;
  child.on("message", (value: unknown) => {
    if (gone) return;
    const notice = readLater(value);
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

type Early = "tried" | "ready" | "refused";

/** The notice, or what is wrong with it. */
function readLater(value: unknown): Exclude<Notice, { type: Early }> | MessageError {
  const notice = tryRead(value);
  if (notice instanceof MessageError) return notice;
  if (notice.type === "tried" || notice.type === "ready" || notice.type === "refused")
    return new MessageError(`a ${notice.type} message out of turn`);
  return notice;
}

function tryRead(value: unknown): Notice | MessageError {
  try {
    return readNotice(value);
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
