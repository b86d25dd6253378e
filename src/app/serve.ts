/**
 * `castellan serve`: from settings to a running server and back to nothing.
 *
 * Order of start: state and keys, model, engine, listeners. Order of the end: /health turns 503, no new work, running
 * answers finish within --shutdown-timeout, listeners close, the engine ends, the store closes. A second signal ends at once.
 */
import { createLog, type Log } from "#base/log.ts";
import { createRegistry } from "#base/metrics.ts";
import type { Environment, Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import type { Address } from "#http/listener.ts";
import { trustProxies } from "#policy/client-address.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { openStateDirectory, StateError } from "#policy/state.ts";
import type { Store } from "#policy/store/store.ts";
import { announce } from "./announce.ts";
import { compose, type Server } from "./compose.ts";
import { firstAnswer } from "./first-answer.ts";
import { type Keys, openKeys } from "./keys.ts";
import { type Limited, limitedGate } from "./limits.ts";
import { findModel, type SourceEvents } from "./model-source.ts";
import { stateDirectory, version } from "./paths.ts";
import { speculationPlan } from "./speculation.ts";
import { StartupError } from "./startup-error.ts";
import { openPolicyStore } from "./store.ts";

export interface ServeOutput extends SourceEvents {
  /** To standard output. */
  print(text: string): void;
}

/** @returns the exit code, once the server has ended. @throws StartupError */
export async function serve(resolved: Resolved, env: Environment, output: ServeOutput): Promise<number> {
  const { settings } = resolved;
  const log = createLog(settings.logLevel);
  const stateDir = stateDirectory(settings.stateDir, env);
  const state = await stated(() => openStateDirectory(stateDir));
  const store = await openPolicyStore(settings, state, log);
  const keys = await stated(() => openKeys(settings, state, store, log));
  const identify = identifyBy({ keys: keys.find });
  const client = trustProxies(settings.trustedProxies.flatMap((item) => item.split(",")));
  if ("problem" in client) throw new StartupError(`--trusted-proxies: ${client.problem}`);
  const registry = createRegistry();
  const limits = limitedGate({ settings, gate: plainGate(identify), db: store.db, registry, log });
  const { gate } = limits;
  const speculation = speculationPlan(settings.speculativeConfig);
  const source = await findModel(resolved.model, settings, env, output);
  const draft =
    speculation?.draft === undefined ? undefined : await findModel(speculation.draft, settings, env, output);
  const server = await compose({ settings, env, source, draft, speculation, gate, registry, client, log });
  const ended = endOnSignals(server, { limits, keys, store }, settings, log);
  const [publicAddress, opsAddress] = await listen(server, settings);
  const minted = await keys.ensureOne();
  const warnings = [...resolved.warnings, ...bindWarnings(settings)];
  for (const warning of warnings) log("warn", warning);
  output.print(
    announce({
      version: version(),
      model: server.names[0] ?? "",
      origin: source.origin,
      ...server.sizing,
      engines: settings.dataParallelSize,
      publicAddress,
      opsAddress,
      keys: { minted, given: keys.given, stored: await keys.stored() },
      stateDir,
      warnings,
    }),
  );
  if (settings.firstAnswer && server.generates) output.print(await askFirst(server, keys, publicAddress));
  return ended;
}

async function stated<T>(load: () => T | Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof StateError) throw new StartupError(error.message);
    throw error;
  }
}

async function listen(server: Server, settings: Settings): Promise<[Address, Address]> {
  const doors = [
    ["public", settings.uds === undefined ? { host: settings.host, port: settings.port } : { path: settings.uds }],
    [
      "ops",
      settings.opsUds === undefined ? { host: settings.opsHost, port: settings.opsPort } : { path: settings.opsUds },
    ],
  ] as const;
  const opened: Address[] = [];
  for (const [plane, address] of doors) {
    try {
      opened.push(await server.http.listen(plane, address));
    } catch (error) {
      await server.http.close(0);
      await server.closeModel();
      const shown = "path" in address ? address.path : `${address.host}:${address.port}`;
      throw new StartupError(`the ${plane} listener cannot have ${shown}: ${reason(error)}`);
    }
  }
  return opened as [Address, Address];
}

function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EADDRINUSE") return "something else listens there (choose another with --port and --ops-port)";
  if (code === "EACCES") return "it is not allowed";
  return error instanceof Error ? error.message : String(error);
}

function bindWarnings(settings: Settings): string[] {
  const open = (host: string, socket: string | undefined): boolean =>
    socket === undefined && !/^(127\.|::1$|localhost$)/.test(host);
  const warnings: string[] = [];
  if (open(settings.host, settings.uds) && !settings.trustProxy) {
    warnings.push(
      `the public listener is on ${settings.host} without TLS: keys and prompts travel in the clear. Put a proxy that ends TLS in front and say --trust-proxy`,
    );
  }
  if (open(settings.opsHost, settings.opsUds))
    warnings.push(`the operations listener is on ${settings.opsHost}: it belongs on loopback or a Unix socket`);
  return warnings;
}

async function askFirst(server: Server, keys: Keys, address: Address): Promise<string> {
  const self = keys.temporary();
  try {
    return await firstAnswer(address, self.key, server.names[0] ?? "");
  } finally {
    self.revoke();
  }
}

/** What outlives the listeners. */
interface Kept {
  readonly limits: Limited;
  readonly keys: Keys;
  readonly store: Store;
}

/** @returns resolves with the exit code */
function endOnSignals(server: Server, kept: Kept, settings: Settings, log: Log): Promise<number> {
  return new Promise((done) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals++;
      log("info", signals === 1 ? "draining" : "ending at once", { signal });
      if (signals > 1) {
        done(signal === "SIGINT" ? 130 : 143);
        return;
      }
      drain(server, kept, settings).then(
        () => done(0),
        () => done(1),
      );
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

async function drain(server: Server, { limits, keys, store }: Kept, settings: Settings): Promise<void> {
  server.stopAccepting();
  await server.http.close(settings.shutdownTimeout * 1000);
  await server.closeModel();
  await limits.close();
  await keys.close();
  await store.close();
}
