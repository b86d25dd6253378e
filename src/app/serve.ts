/**
 * `castellan serve`: from settings to a running server and back to nothing.
 *
 * Order of start: state, audit log, store and keys, model, engine, listeners; the engine starts while the rest of the server is loaded,
 * and what is wrong is told in that order all the same. Order of the end: /health turns 503, no new work, running answers
 * and background responses finish within --shutdown-timeout, listeners close, the engine ends, usage, the audit log and the store close. A second signal ends at once.
 */
import { createLog, type Log } from "#base/log.ts";
import { createRedact, type Redactor } from "#base/redact.ts";
import type { Environment } from "#config/environment.ts";
import type { Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import type { Address } from "#http/listener.ts";
import { trustProxies } from "#policy/client-address.ts";
import { plainGate } from "#policy/gate.ts";
import type { DatabaseResponses } from "#policy/responses/store.ts";
import { openStateDirectory, type StateDirectory, StateError } from "#policy/state.ts";
import type { Store } from "#policy/store/store.ts";
import { announce } from "./announce.ts";
import type { Audit } from "./audit.ts";
import type { TicketParts } from "./batch-tickets.ts";
import type { BatchWork } from "./batches.ts";
import { clientTable, identifier, rulesStand, takenTokens } from "./callers.ts";
import { begin, relays } from "./computing.ts";
import { checkEgress, type EgressRecords, egressRecords, fetchesMedia, openMedia, recordedGet } from "./egress.ts";
import { hardenProcess } from "./hardening.ts";
import type { Keys } from "./keys.ts";
import type { Limits } from "./limits.ts";
import { bindWarnings, openListeners } from "./listeners.ts";
import { namesHub, type SourceEvents } from "./model-source.ts";
import { stateDirectory, version } from "./paths.ts";
import { openPolicy, type Policy, reloadOnHangup } from "./policy.ts";
import { givenSecrets } from "./secrets.ts";
import type { Server } from "./server.ts";
import { StartupError } from "./startup-error.ts";
import { openTls, type Tls } from "./tls.ts";
import type { CallerTokens } from "./tokens.ts";

export interface ServeOutput extends SourceEvents {
  /** To standard output. */
  print(text: string): void;
}

/** @returns the exit code, once the server has ended. @throws StartupError */
export async function serve(resolved: Resolved, env: Environment, output: ServeOutput): Promise<number> {
  const { settings } = resolved;
  const ready = await startServer(resolved, env, output);
  const { parts, tls, log } = ready;
  const { server, keys } = parts;
  const ended = endOnSignals(parts, settings, log);
  const warnings = [...ready.warnings, ...bindWarnings(settings, tls)];
  const abandoned = (error: unknown) => abandon(parts, error);
  await recordStart(ready, warnings).catch(abandoned);
  const [publicAddress, opsAddress] = await openListeners(server, settings, tls).catch(abandoned);
  const minted = await keys.ensureOne();
  parts.batchWork.start(server.http, { keys: keys.book, isGiven: keys.isGiven, stands: parts.stands });
  for (const warning of warnings) log("warn", warning);
  output.print(
    announce({
      version: version(),
      model: server.names[0] ?? "",
      description: server.description,
      tasks: server.tasks,
      publicAddress,
      opsAddress,
      tls,
      keys: { minted, given: keys.given, stored: await keys.stored() },
      issuers: parts.tokens?.issuers ?? 0,
      stateDir: ready.stateDir,
      warnings,
    }),
  );
  if (settings.firstAnswer && server.generates) output.print(await askFirst(server, keys, publicAddress, tls.public));
  return ended.finally(() => tls.close());
}

/** A server that could answer and listens nowhere. */
export interface ReadyServer {
  readonly parts: Running;
  readonly tls: Tls;
  readonly log: Log;
  readonly stateDir: string;
  readonly warnings: readonly string[];
}

/** @throws StartupError */
export async function startServer(resolved: Resolved, env: Environment, output: ServeOutput): Promise<ReadyServer> {
  const { settings } = resolved;
  hardenProcess(resolved);
  const redact = createRedact(givenSecrets(settings));
  const log = createLog(settings.logLevel, redact);
  const stateDir = stateDirectory(settings.stateDir, env);
  const state = await stated(() => openStateDirectory(stateDir));
  const tls = await openTls(settings, log);
  const rules = await openPolicy(settings);
  const certificates = await clientTable(settings, rules, log);
  const client = trustProxies(settings.trustedProxies.flatMap((item) => item.split(",")));
  if ("problem" in client) throw new StartupError(`--trusted-proxies: ${client.problem}`);
  checkEgress(settings);
  const egress = egressRecords(log);
  const opening = openKept(settings, rules, { state, redact, log, egress });
  opening.catch(() => {});
  // A hub is asked by a start whose keys are in order; a file here can be opened while they are read.
  if (namesHub(resolved.model)) await opening;
  const beginning = begin({ resolved, env, output: { ...output, egress }, state, redact, log });
  const administration = beginning.begun.then(() => import("./admin.ts"));
  administration.catch(() => {});
  const policy = await opening;
  const { limits } = policy;
  const { openAdministration } = await administration;
  const { audit, tokens, batchWork, keys, media } = policy;
  const gate = audit.around(limits.around(plainGate(identifier({ ...policy, certificates }))));
  const admin = openAdministration({ settings, statePath: state.path, ...policy });
  const { responses } = policy;
  const saltKey = keys.secretFor("cache salts");
  const parties = {
    gate,
    policy: rules,
    limits,
    admin,
    batchWork,
    responses,
    client,
    tls,
    audit,
    egress,
    media,
    saltKey,
  };
  const server = await beginning.build({ settings, env, ...parties, redact, log });
  const warnings = [...resolved.warnings, ...tls.warnings, ...(tokens?.warnings ?? [])];
  const stands = rulesStand({ tokens, certificates });
  return { parts: { server, ...policy, stands }, tls, log, stateDir, warnings };
}

/** @throws StartupError it cannot be recorded */
export async function recordStart({ parts }: ReadyServer, warnings: readonly string[]): Promise<void> {
  const { server, rules, audit } = parts;
  await audit.started({ model: server.names[0] ?? null, policy: rules.current().sha256 ?? null }, warnings);
}

interface Ground {
  readonly state: StateDirectory;
  readonly redact: Redactor;
  readonly log: Log;
  readonly egress: EgressRecords;
}

/** The audit log and the store, then the keys and what is counted under them, then whose signed tokens are taken. */
async function openKept(settings: Settings, rules: Policy, { state, redact, log, egress }: Ground): Promise<Kept> {
  const [{ openAudit }, { openPolicyStore }] = await Promise.all([import("./audit.ts"), import("./store.ts")]);
  const audit = await stated(() => openAudit(settings, state, redact, log));
  rules.recordIn((actor, details) => audit.event("policy.change", actor, undefined, details));
  egress.auditTo(audit.event);
  reloadOnHangup(rules, log);
  const opening = openPolicyStore(settings, state, log);
  opening.catch(() => {});
  const { openKeys } = await import("./keys.ts");
  const { openLimits } = await import("./limits.ts");
  const store = await opening;
  audit.appendBy(store.disk);
  const keys = await stated(() => openKeys(settings, state, store, log));
  const limits = await openLimits(settings, rules, store, log);
  const responses = settings.responsesStore
    ? await (await import("./responses.ts")).openResponses(settings, store, log)
    : undefined;
  const tokens = await takenTokens(settings, rules, { log, get: recordedGet(settings, egress) });
  const media = fetchesMedia(settings) || relays(settings) ? await openMedia(settings, egress) : undefined;
  const { openBatches } = await import("./batches.ts");
  const batchWork = await stated(() => openBatches(settings, state, store, log));
  return { rules, audit, store, keys, limits, responses, tokens, batchWork, media };
}

async function stated<T>(load: () => T | Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (error instanceof StateError) throw new StartupError(error.message);
    throw error;
  }
}

async function askFirst(server: Server, keys: Keys, address: Address, tls: Tls["public"]): Promise<string> {
  if (tls?.clients === "required") return "No first answer: the listener wants a client certificate.\n\n";
  const self = keys.temporary();
  const { firstAnswer } = await import("./first-answer.ts");
  try {
    return await firstAnswer(address, self.key, server.names[0] ?? "", tls?.own);
  } finally {
    self.revoke();
  }
}

/** What outlives the listeners. */
interface Kept {
  readonly rules: Policy;
  readonly audit: Audit;
  readonly limits: Limits;
  readonly keys: Keys;
  readonly store: Store;
  readonly responses: DatabaseResponses | undefined;
  readonly tokens: CallerTokens | undefined;
  readonly batchWork: BatchWork;
  readonly media: MediaFetcher | undefined;
}

export type Running = Kept & { readonly server: Server; readonly stands: TicketParts["stands"] };

/** A start that cannot go on. */
async function abandon(parts: Running, error: unknown): Promise<never> {
  await close(parts, 0, "the start failed");
  throw error;
}

/** @returns resolves with the exit code */
function endOnSignals(parts: Running, settings: Settings, log: Log): Promise<number> {
  return new Promise((done) => {
    let signals = 0;
    const onSignal = (signal: NodeJS.Signals): void => {
      signals++;
      log("info", signals === 1 ? "draining" : "ending at once", { signal });
      if (signals > 1) {
        done(signal === "SIGINT" ? 130 : 143);
        return;
      }
      parts.server.stopAccepting();
      close(parts, settings.shutdownTimeout * 1000, signal).then(
        () => done(0),
        () => done(1),
      );
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

export async function close(parts: Running, graceMs: number, why: string): Promise<void> {
  const { server, audit, limits, keys, responses, store, batchWork, media } = parts;
  // Lines that are on their way are done again at the next start.
  await batchWork.close();
  await Promise.all([server.http.close(graceMs), server.endBackground(graceMs)]);
  await media?.close();
  await server.closeModel(graceMs);
  await responses?.close();
  await limits.close();
  await audit.stopped({ reason: why });
  await keys.close();
  await store.close();
}
