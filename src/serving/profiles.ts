/**
 * Profiles: the CPU profile of the HTTP process and the step timeline of the engines, from one moment to another, as two
 * files in the operator's folder.
 *
 * Invariants: one profile at a time, ended by itself after a bounded time; nobody waits longer for an engine, the profiler or
 * the folder than a bound, and what begins to record after that is told to stop; names are made here, callers choose none; what
 * is larger than the bound is not written, and said (Wall: T91). A profile holds names of functions and sizes of steps, no
 * text of anybody. Made by the app.
 */
import { randomBytes } from "node:crypto";
import { stringifyJson } from "#base/json.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { Operations } from "#core/operations.ts";
import type { Grant } from "#core/principal.ts";
import { within } from "./_within.ts";

/** Samples this process. */
export interface CpuRecorder {
  start(): Promise<void>;
  /** @returns what DevTools opens as a .cpuprofile */
  stop(): Promise<object>;
}

export interface ProfileFolder {
  /** @throws Fault invalid_request: the folder is not one to write to, or full */
  ready(): Promise<void>;
  write(name: string, text: string): Promise<void>;
}

export interface ProfilesOptions {
  readonly operations: Pick<Operations, "startProfile" | "stopProfile">;
  readonly cpu: CpuRecorder;
  readonly folder: ProfileFolder;
  readonly maxSeconds: number;
  readonly maxBytes: number;
  /** For each thing that is waited for. */
  readonly waitMs?: number;
}

/** Four such waits fit into the time of a request. */
const WAIT_MS = 12_000;

export interface ProfileFiles {
  /** Names in the folder. */
  readonly files: readonly string[];
  /** Names of what was too large to be written. */
  readonly leftOut: readonly string[];
}

interface Recording {
  readonly name: string;
  readonly timer: NodeJS.Timeout;
  /** Of whoever comes first: the caller or the clock. */
  ending: Promise<ProfileFiles> | undefined;
}

export class Profiles {
  readonly #options: ProfilesOptions;
  #recording: Recording | undefined;
  #starting = false;

  constructor(options: ProfilesOptions) {
    this.#options = options;
  }

  /**
   * @param seconds after which it ends by itself; absent: as long as it may
   * @throws Fault invalid_request: one is being recorded, it is too long, or there is no room | request_timeout: the engines
   *   do not answer, and nothing is recorded
   */
  async start(_grant: Grant<"profile">, seconds?: number): Promise<number> {
    const { maxSeconds } = this.#options;
    const length = seconds ?? maxSeconds;
    if (length > maxSeconds) throw invalid("seconds", `A profile takes ${maxSeconds} seconds at most.`);
    const old = this.#recording;
    if (this.#starting || (old !== undefined && old.ending === undefined))
      throw invalid("profile", "A profile is being recorded: stop it first.");
    this.#starting = true;
    try {
      await old?.ending?.catch(() => {});
      await this.#begin(length);
    } finally {
      this.#starting = false;
    }
    return length;
  }

  /** @throws Fault invalid_request: none was started | request_timeout: the folder does not answer */
  async stop(_grant: Grant<"profile">): Promise<ProfileFiles> {
    const recording = this.#recording;
    if (recording === undefined) throw invalid("profile", "No profile was started.");
    try {
      return await this.#end(recording);
    } finally {
      if (this.#recording === recording) this.#recording = undefined;
    }
  }

  async #begin(seconds: number): Promise<void> {
    const { operations, cpu, folder } = this.#options;
    await this.#within(folder.ready(), "The folder of profiles does not answer: nothing is recorded.");
    const stopSteps = () => operations.stopProfile();
    await this.#beginOne(operations.startProfile(), stopSteps, "The engines do not answer: nothing is recorded.");
    try {
      const stopCpu = () => cpu.stop();
      await this.#beginOne(cpu.start(), stopCpu, "The profiler does not answer: nothing is recorded.");
    } catch (error) {
      await this.#within(operations.stopProfile(), "").catch(() => {});
      throw error;
    }
    const stamp = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
    const timer = setTimeout(() => {
      // Whoever asks for the files hears of the failure.
      this.#end(recording).catch(() => {});
    }, seconds * 1000);
    timer.unref();
    const name = `profile-${stamp}-${randomBytes(4).toString("hex")}`;
    const recording: Recording = { name, timer, ending: undefined };
    this.#recording = recording;
  }

  /** What begins when nobody waits for it any more is stopped again, unless the next profile has begun. */
  async #beginOne(begun: Promise<void>, stop: () => Promise<unknown>, late: string): Promise<void> {
    try {
      await this.#within(begun, late);
    } catch (error) {
      begun.then(() => (this.#starting || this.#recording !== undefined ? undefined : stop())).catch(() => {});
      throw error;
    }
  }

  #within<T>(work: Promise<T>, late: string): Promise<T> {
    return within(work, this.#options.waitMs ?? WAIT_MS, () => new Fault("request_timeout", late));
  }

  #end(recording: Recording): Promise<ProfileFiles> {
    clearTimeout(recording.timer);
    recording.ending ??= this.#write(recording.name);
    return recording.ending;
  }

  async #write(name: string): Promise<ProfileFiles> {
    const { operations, cpu, folder, maxBytes } = this.#options;
    const [process, steps] = await Promise.allSettled(
      [cpu.stop(), operations.stopProfile()].map((part: Promise<object>) => this.#within(part, "It does not answer.")),
    );
    const files: string[] = [];
    const leftOut: string[] = [];
    for (const [ending, result] of [
      ["http.cpuprofile", process],
      ["engine.trace.json", steps],
    ] as const) {
      const text = result?.status === "fulfilled" ? stringifyJson(result.value) : undefined;
      if (text === undefined || Buffer.byteLength(text) > maxBytes) leftOut.push(`${name}-${ending}`);
      else {
        await this.#within(folder.write(`${name}-${ending}`, text), "The folder of profiles does not answer.");
        files.push(`${name}-${ending}`);
      }
    }
    return { files, leftOut };
  }
}
