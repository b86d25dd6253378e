/**
 * `castellan run-batch`: a file of requests through a server that nobody else can reach, into a file of answers.
 *
 * Invariants: what stands in the output after any end is a beginning of what a whole run would leave there, and the same
 * command goes on behind it; a line that fails is a row and ends nothing. Called by cli/.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import type { Environment } from "#config/environment.ts";
import type { Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import { withLock } from "#integrity/lock.ts";
import { routes } from "#routes/index.ts";
import { inOrder } from "#serving/batch/in-order.ts";
import { behind, type InputLine, readLines } from "#serving/batch/lines.ts";
import { BatchOutput, OutputError } from "#serving/batch/output.ts";
import { printVllmRow, succeeded } from "#wire/batch/line.ts";
import { LINE_BYTES, runLine } from "./batch-line.ts";
import { isUrl, localPlaces } from "./batch-transfer.ts";
import { close, type ReadyServer, recordStart, type ServeOutput, startServer } from "./serve.ts";
import { StartupError } from "./startup-error.ts";
import { switchedOff } from "./switches.ts";

/** Paths, or https URLs. */
export interface BatchFiles {
  readonly input: string;
  readonly output: string;
}

export interface BatchOptions extends BatchFiles {
  /** --output-tmp-dir */
  readonly folder: string | undefined;
  /** Lines at once; undefined: what fills the engines. */
  readonly concurrency: number | undefined;
  /** The operations listener is opened, where --host and --port say. */
  readonly metrics: boolean;
}

export interface BatchEvents extends ServeOutput {
  /** In bytes of the input. */
  onLines(done: number, total: number): void;
}

export interface BatchSummary {
  /** Rows that an earlier run left. */
  readonly before: number;
  readonly answered: number;
  readonly failed: number;
  /** What ended it before its time. */
  readonly signal?: NodeJS.Signals;
}

/** How long a line waits for an engine that is being started again. */
const PATIENCE_MS = 5 * 60_000;
/** Rows that may wait for an earlier one, for each line at once. */
const AHEAD = 8;

/** @throws StartupError, one line for people */
export async function runBatch(
  options: BatchOptions,
  resolved: Resolved,
  env: Environment,
  events: BatchEvents,
): Promise<BatchSummary> {
  if (!isUrl(options.input) && !isUrl(options.output)) return runFiles(options, resolved, env, events);
  const places = await localPlaces(options, resolved.settings);
  try {
    const { input, output } = places;
    const summary = await runFiles({ ...options, input, output }, resolved, env, events);
    if (summary.signal !== undefined) return summary;
    await places.deliver();
    return summary;
  } finally {
    await places.clean();
  }
}

async function runFiles(
  options: BatchOptions,
  resolved: Resolved,
  env: Environment,
  events: BatchEvents,
): Promise<BatchSummary> {
  const bytes = await judgeInput(options.input);
  const onWait = (): never => {
    throw new StartupError(`another run is writing to ${options.output}`);
  };
  return readable(options, () =>
    withLock(`${options.output}.lock`, { onWait }, async () => {
      const input = await digest(options.input);
      const ready = await startServer(resolved, env, events);
      const interrupted = interruptions(ready);
      const job = { options, input, bytes, settings: resolved.settings, ready, signal: interrupted.signal };
      try {
        await recordStart(ready, ready.warnings);
        for (const warning of ready.warnings) ready.log("warn", warning);
        if (options.metrics) await openMetrics(job);
        const summary = await run(job, events);
        return { ...summary, ...interrupted.by() };
      } finally {
        interrupted.stop();
        await close(ready.parts, 0, "the batch is over");
        ready.tls.close();
      }
    }),
  );
}

interface Job {
  readonly options: BatchOptions;
  /** SHA-256, hex. */
  readonly input: string;
  readonly bytes: number;
  readonly settings: Settings;
  readonly ready: ReadyServer;
  readonly signal: AbortSignal;
}

async function run(job: Job, events: BatchEvents): Promise<Omit<BatchSummary, "signal">> {
  const { options, input, settings, ready, signal } = job;
  const { server, keys } = ready.parts;
  const output = await BatchOutput.open(options.output, { input, model: server.names[0] ?? "" });
  const before = output.rows;
  const self = keys.temporary();
  const parts = {
    http: server.http,
    routes: routes.filter((route) => switchedOff(route, settings) === undefined),
    key: self.key,
    patienceMs: PATIENCE_MS,
  };
  const width = options.concurrency ?? 2 * server.width;
  const work = async (line: InputLine) => ({ end: line.end, outcome: await runLine(parts, line, signal) });
  const lines = behind(readLines(options.input, LINE_BYTES), before);
  let [answered, failed] = [0, 0];
  try {
    for await (const { end, outcome } of inOrder(lines, { width, ahead: AHEAD * width }, work)) {
      await output.append(printVllmRow(outcome));
      if (succeeded(outcome)) answered++;
      else failed++;
      events.onLines(end, job.bytes);
    }
    await output.finish();
  } catch (error) {
    await output.close();
    if (!signal.aborted) throw error;
  } finally {
    self.revoke();
  }
  return { before, answered, failed };
}

/** The first signal stops the work, whose rows stay; a second one ends the process at once. */
function interruptions({ log }: ReadyServer) {
  const controller = new AbortController();
  let first: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (first !== undefined) process.exit(exitCodeOf(signal));
    first = signal;
    log("info", "ending after the rows that are written", { signal });
    controller.abort(new Error(signal));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return {
    signal: controller.signal,
    by: () => (first === undefined ? {} : { signal: first }),
    stop: () => {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}

/** As shells count. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return signal === "SIGINT" ? 130 : 143;
}

async function openMetrics({ settings, ready }: Job): Promise<void> {
  const { host, port } = settings;
  try {
    await ready.parts.server.http.listen("ops", { host, port }, ready.tls.ops);
  } catch (error) {
    throw new StartupError(`--enable-metrics cannot have ${host}:${port}: ${codeOf(error)}`);
  }
}

async function judgeInput(path: string): Promise<number> {
  try {
    const found = await stat(path);
    if (!found.isFile()) throw new StartupError(`${path} is not a plain file`);
    return found.size;
  } catch (error) {
    if (error instanceof StartupError) throw error;
    throw new StartupError(`${path} cannot be read (${codeOf(error)})`);
  }
}

async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

/** What the files' system says, for people. */
async function readable<T>({ input, output }: BatchFiles, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof OutputError) throw new StartupError(error.message);
    const { code, path = "", syscall } = error as NodeJS.ErrnoException;
    if (code === undefined || syscall === undefined) throw error;
    const what = path === input ? `${input} cannot be read` : `${output} cannot be written`;
    throw new StartupError(`${what} (${code})`);
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "error";
}
