/**
 * Files and batches as the settings want them: their folder, records and room, and the runner over the server's own
 * corridor. Called by serve.ts.
 */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Settings } from "#config/settings.ts";
import type { BatchRecords } from "#core/batches.ts";
import { Fault } from "#core/fault.ts";
import type { Http } from "#http/server.ts";
import { withLock } from "#integrity/lock.ts";
import { batchRecords } from "#policy/batches/records.ts";
import { openStateDirectory, type StateDirectory } from "#policy/state.ts";
import type { Store } from "#policy/store/store.ts";
import { batchRoute } from "#routes/batch-urls.ts";
import { routes } from "#routes/index.ts";
import { Batches } from "#serving/batch/batches.ts";
import { Files } from "#serving/batch/files.ts";
import { registerBatchMetrics } from "#serving/batch/metrics.ts";
import { BatchRunner, type LineCaller } from "#serving/batch/runner.ts";
import type { Tries } from "#serving/batch/turns.ts";
import { LINE_BYTES, runLine } from "./batch-line.ts";
import { BatchTickets, type TicketParts } from "./batch-tickets.ts";
import { switchedOff } from "./switches.ts";

export interface BatchWork {
  readonly tickets: BatchTickets;
  readonly files: Files;
  readonly batches: Batches;
  /** Its metrics. */
  register(registry: Registry): void;
  /** Goes on with what was not over. Before it nothing runs. */
  start(http: Pick<Http, "inject" | "isDraining">, keys: Omit<TicketParts, "needs">): void;
  /** Stops where it is. Before the listeners close. */
  close(): Promise<void>;
}

const DAY_MS = 24 * 3_600_000;
/** As OpenAI's. */
const MOST_LINES = 50_000;
const TENANT_FILES = 1000;
const TENANT_BATCHES = 16;
const NODE = /^[0-9a-f]{32}$/;

/** @throws StateError */
export function openBatches(settings: Settings, state: StateDirectory, store: Store, log: Log): BatchWork {
  const folder = openStateDirectory(join(state.path, "files"), "folder of files").path;
  const records: BatchRecords = batchRecords(store.db, nodeOf(state));
  const { batchTenantBytes: tenantBytes, batchBytes: allBytes, batchKeepDays } = settings;
  const keepMs = batchKeepDays * DAY_MS;
  const files = new Files({ records, folder, room: { allBytes, tenantBytes, tenantFiles: TENANT_FILES }, keepMs });
  const declared = routes.filter((route) => switchedOff(route, settings) === undefined);
  const tickets = new BatchTickets();
  let runner: BatchRunner | undefined;
  let onRow: ReturnType<typeof registerBatchMetrics> = () => {};
  let running: (() => Promise<void>) | undefined;
  const takes = (endpoint: string) => batchRoute(endpoint, declared) !== undefined;
  const batches = new Batches({ records, files, takes, wake: () => runner?.wake(), mostOpen: TENANT_BATCHES });
  const start = (http: Pick<Http, "inject" | "isDraining">, keys: Omit<TicketParts, "needs">): void => {
    const make = () =>
      new BatchRunner({
        records,
        files,
        call: (batch): LineCaller => {
          const access = batchRoute(batch.endpoint, declared)?.access;
          const ticket = tickets.issue(batch, { ...keys, needs: access?.kind === "key" ? access.scope : "batch" });
          const parts = { http, routes: declared, key: ticket.key, only: batch.endpoint };
          return {
            run: async (line, tries, signal) => {
              // Hours may lie between two tries: each is the author's as it is then.
              const renewed: Tries = {
                once: (work) => tries.once(() => ticket.renew(signal).then(work)),
                wait: (ms) => tries.wait(ms),
              };
              const patienceMs = batch.expiresAt - Date.now();
              const outcome = await runLine({ ...parts, patienceMs, tries: renewed }, line, signal);
              if (outcome.status === 401)
                throw new Fault("unauthenticated", "Who made the batch may not call any more.");
              return outcome;
            },
            close: () => ticket.revoke(),
          };
        },
        width: settings.batchConcurrency,
        mostLines: MOST_LINES,
        lineBytes: LINE_BYTES,
        keepMs,
        log,
        onRow: (how) => onRow(how),
      });
    running = alone(join(state.path, "batches.lock"), log, () => {
      runner = make();
      return runner;
    });
  };
  const register = (registry: Registry): void => {
    onRow = registerBatchMetrics(registry, () => records.totals());
  };
  return { tickets, files, batches, register, start, close: async () => running?.() };
}

const RETRY_MS = 5000;

/**
 * Runs it while no other server on the same state directory does; the one that waits takes over. A lock that is lost,
 * or cannot be had, is asked for again.
 * @param make one that can be started, each time the lock is had
 * @returns stops it
 */
export function alone(
  lock: string,
  log: Log,
  make: () => Pick<BatchRunner, "start" | "close">,
  retryMs = RETRY_MS,
): () => Promise<void> {
  const ending = new AbortController();
  const { signal } = ending;
  const round = async (): Promise<void> => {
    try {
      await withLock(lock, { signal }, (lost) => runUntil(make(), [signal, lost]));
      if (!signal.aborted) log("warn", "another server has taken over the batches", {});
    } catch (error) {
      if (!signal.aborted) log("error", "batches do not run: their lock cannot be had", { reason: String(error) });
    }
  };
  const rounds = async (): Promise<void> => {
    while (!signal.aborted) {
      await round();
      await wait(retryMs, undefined, { signal }).catch(() => {});
    }
  };
  const over = rounds();
  return async () => {
    ending.abort();
    await over;
  };
}

async function runUntil(runner: Pick<BatchRunner, "start" | "close">, ends: readonly AbortSignal[]): Promise<void> {
  runner.start();
  await once(ends);
  await runner.close();
}

async function once(signals: readonly AbortSignal[]): Promise<void> {
  const any = AbortSignal.any([...signals]);
  if (!any.aborted) await new Promise((resolve) => any.addEventListener("abort", resolve, { once: true }));
}

/** Of this state directory, where the contents are. */
function nodeOf(state: StateDirectory): string {
  state.read("node") ?? state.create("node", Buffer.from(randomBytes(16).toString("hex")));
  const node = state.read("node")?.toString() ?? "";
  if (!NODE.test(node))
    throw new Error(`${join(state.path, "node")} is damaged: delete it, and files of batches are lost`);
  return node;
}
