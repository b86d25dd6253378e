/**
 * `castellan serve`: from settings to a running server and back to nothing.
 *
 * Order of start: state and keys, model, engine, listeners. Order of the end: /health turns 503, no new work, running
 * answers finish within --shutdown-timeout, listeners close, the engine ends, the store closes. A second signal ends at once.
 */
import { createLog, type Log } from "#base/log.ts";
import type { Environment, Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import type { Address } from "#http/listener.ts";
import { plainGate } from "#policy/gate.ts";
import { identifyBy } from "#policy/identify.ts";
import { openStateDirectory, StateError } from "#policy/state.ts";
import type { Store } from "#policy/store/store.ts";
import { announce } from "./announce.ts";
import { clientCertificates } from "./client-certificates.ts";
import { compose, type Server } from "./compose.ts";
import { firstAnswer } from "./first-answer.ts";
import { existingKeys, type Keys, mintedKeys } from "./keys.ts";
import { bindWarnings, openListeners } from "./listeners.ts";
import { findModel, type SourceEvents } from "./model-source.ts";
import { stateDirectory, version } from "./paths.ts";
import { speculationPlan } from "./speculation.ts";
import { StartupError } from "./startup-error.ts";
import { openPolicyStore } from "./store.ts";
import { openTls, type Tls } from "./tls.ts";

export interface ServeOutput extends SourceEvents {
  /** To standard output. */
  print(text: string): void;
}

/** @returns the exit code, once the server has ended. @throws StartupError */
export async function serve(resolved: Resolved, env: Environment, output: ServeOutput): Promise<number> {
  const { settings } = resolved;
  const log = createLog(settings.logLevel);
  const stateDir = stateDirectory(settings.stateDir, env);
  const state = stated(() => openStateDirectory(stateDir));
  const store = await openPolicyStore(settings, state, log);
  let keys = stated(() => existingKeys(settings, state));
  // Until there is a key nobody has one.
  const certificates = clientCertificates(settings, log);
  const byName = identifyBy({
    keys: (key) => keys?.find(key),
    certificates: (certificate) => certificates.find(certificate),
  });
  const identify = certificates.guard(byName);
  const tls = openTls(settings, log);
  const speculation = speculationPlan(settings.speculativeConfig);
  const source = await findModel(resolved.model, settings, env, output);
  const draft =
    speculation?.draft === undefined ? undefined : await findModel(speculation.draft, settings, env, output);
  const server = await compose({ settings, env, source, draft, speculation, gate: plainGate(identify), tls, log });
  const ended = endOnSignals(server, store, settings, log);
  const [publicAddress, opsAddress] = await openListeners(server, settings, tls);
  keys ??= stated(() => mintedKeys(state));
  const warnings = [...resolved.warnings, ...bindWarnings(settings, tls), ...tls.warnings];
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
      tls,
      keys,
      stateDir,
      warnings,
    }),
  );
  if (settings.firstAnswer && server.generates) output.print(await askFirst(server, keys, publicAddress, tls.public));
  return ended.finally(() => tls.close());
}

function stated<T>(load: () => T): T {
  try {
    return load();
  } catch (error) {
    if (error instanceof StateError) throw new StartupError(error.message);
    throw error;
  }
}

async function askFirst(server: Server, keys: Keys, address: Address, tls: Tls["public"]): Promise<string> {
  if (tls?.clients === "required") return "No first answer: the listener wants a client certificate.\n\n";
  const self = keys.temporary();
  try {
    return await firstAnswer(address, self.key, server.names[0] ?? "", tls?.own);
  } finally {
    self.revoke();
  }
}

/** @returns resolves with the exit code */
function endOnSignals(server: Server, store: Store, settings: Settings, log: Log): Promise<number> {
  return new Promise((done) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals++;
      log("info", signals === 1 ? "draining" : "ending at once", { signal });
      if (signals > 1) {
        done(signal === "SIGINT" ? 130 : 143);
        return;
      }
      drain(server, store, settings).then(
        () => done(0),
        () => done(1),
      );
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

async function drain(server: Server, store: Store, settings: Settings): Promise<void> {
  server.stopAccepting();
  await server.http.close(settings.shutdownTimeout * 1000);
  await server.closeModel();
  await store.close();
}
