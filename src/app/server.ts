/**
 * The server around whatever computes: serving, the services of the routes, and the listeners' side. Callers: compose.ts
 * (an engine in this process's care), gateway.ts (upstream servers).
 */
import type { Log } from "#base/log.ts";
import { printMetrics, type Registry } from "#base/metrics.ts";
import type { Redactor } from "#base/redact.ts";
import type { Environment } from "#config/environment.ts";
import { capSettingOf, type Settings } from "#config/settings.ts";
import { ownedKey } from "#core/owned.ts";
import type { PoolTask } from "#core/pool.ts";
import { capsOf } from "#core/request-caps.ts";
import type { ResponseStore } from "#core/responses.ts";
import type { Relay } from "#http/relay.ts";
import type { Http } from "#http/server.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Gate } from "#policy/gate.ts";
import { registerResponseMetrics } from "#policy/responses/metrics.ts";
import type { DatabaseResponses } from "#policy/responses/store.ts";
import { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import type { Services } from "#routes/index.ts";
import type { Adapters } from "#serving/adapters.ts";
import type { Administration } from "#serving/administration.ts";
import type { Serving } from "#serving/context.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";
import { Models, type ServedModel } from "#serving/models.ts";
import type { ServingObserver } from "#serving/observe.ts";
import { makeOutput } from "#serving/output.ts";
import { Responses } from "#serving/responses.ts";
import type { ServerOperations } from "#serving/server-operations.ts";
import type { StoredResponses } from "#serving/stored-responses.ts";
import type { Audit } from "./audit.ts";
import type { BatchWork } from "./batches.ts";
import type { EgressRecords } from "./egress.ts";
import { embedPrefixes } from "./generation-config.ts";
import { declaredRoutes, openapiOf, openHttp } from "./http.ts";
import type { Limits } from "./limits.ts";
import { version } from "./paths.ts";
import type { Policy } from "./policy.ts";
import { responseOptions } from "./responses.ts";
import { StartupError } from "./startup-error.ts";
import { registerTlsMetrics, type Tls } from "./tls.ts";

export interface Server {
  readonly http: Http;
  /** Of the models. */
  readonly names: readonly string[];
  /** What computes, for people. */
  readonly description: string;
  /** Requests that are worked on at once, as far as it is known. */
  readonly width: number;
  /** False: the model is run for numbers. */
  readonly generates: boolean;
  /** What it gives numbers for; none where it generates, or where only its servers know. */
  readonly tasks: readonly PoolTask[];
  /** /health says 503 from now on. */
  stopAccepting(): void;
  /** Responses in the background may go on for so long; then they fail. */
  endBackground(graceMs: number): Promise<void>;
  /** What computes; after http is closed. */
  closeModel(graceMs: number): Promise<void>;
}

/** What a server is built of, whatever computes. */
export interface ServerParts {
  readonly settings: Settings;
  readonly env: Environment;
  readonly gate: Gate;
  readonly policy: Pick<Policy, "current">;
  /** Whether calls can be recorded, its metrics, and where changes are told. */
  readonly audit: Pick<Audit, "healthy" | "register" | "event">;
  readonly egress: Pick<EgressRecords, "register">;
  readonly redact: Redactor;
  readonly limits: Pick<Limits, "observe">;
  readonly admin: Administration;
  readonly batchWork: Pick<BatchWork, "files" | "batches" | "register">;
  /** Undefined: none are kept. */
  readonly responses: (ResponseStore & Pick<DatabaseResponses, "totals">) | undefined;
  readonly tls: Tls;
  readonly client: FindClient;
  readonly log: Log;
}

/** What computes. */
export interface Computing {
  readonly served: readonly ServedModel[];
  readonly registry: Registry;
  readonly observerOf: (model: ServedModel) => ServingObserver;
  readonly adapters: (models: Models) => Promise<Adapters>;
  readonly operations: ServerOperations;
  /** Whether what computes takes calls; absent: its backends say so. */
  readonly ready?: () => boolean;
  /** Calls that others answer. */
  readonly relay?: (serving: Serving, stored: StoredResponses) => Relay<Services>;
}

/** The metrics of what every server has. */
export function registerParts(registry: Registry, parts: ServerParts): void {
  const { tls, limits, audit, batchWork, responses, egress } = parts;
  registerTlsMetrics(registry, tls);
  limits.observe(registry);
  audit.register(registry);
  batchWork.register(registry);
  registerResponseMetrics(registry, responses);
  egress.register(registry);
}

/** What a tenant's batches get of the engine beside somebody who waits for an answer. */
const BATCH_WEIGHT = 0.05;

function sharesOf(settings: Settings, policy: Pick<Policy, "current">): Serving["shareOf"] {
  const weightOf = (tenant: string): number =>
    policy.current().tenants.of(tenant)?.weight ?? settings.tenantWeights.get(tenant) ?? 1;
  return ({ tenant, behind }) =>
    behind === true
      ? { key: ownedKey(tenant, "batch"), weight: weightOf(tenant) * BATCH_WEIGHT }
      : { key: tenant, weight: weightOf(tenant) };
}

function openServing({ settings, policy }: ServerParts, models: Models, { observerOf }: Computing): Serving {
  return {
    models,
    caps: capsOf((_row, name) => settings[capSettingOf(name)]),
    priorities: settings.schedulingPolicy === "priority",
    makeOutput,
    grammars: new GrammarCompiler(),
    observerOf,
    shareOf: sharesOf(settings, policy),
  };
}

type Made = Pick<Server, "http" | "stopAccepting" | "endBackground">;

/** @throws StartupError */
export async function createServer(parts: ServerParts, computing: Computing): Promise<Made> {
  const { settings, admin, audit, log } = parts;
  const [first, ...rest] = computing.served;
  if (first === undefined) throw new StartupError("no model is served");
  const models = new Models([first, ...rest]);
  const serving = openServing(parts, models, computing);
  const responses = new Responses({ serving, store: parts.responses, ...responseOptions(settings), log });
  let load = (): number => 0;
  let accepting = true;
  const declared = declaredRoutes(settings);
  const services: Services = {
    serving,
    responses,
    adapters: await computing.adapters(models),
    admin,
    files: parts.batchWork.files,
    batches: parts.batchWork.batches,
    operations: computing.operations,
    caps: serving.caps,
    usage: { cachedTokens: settings.enablePromptTokensDetails, always: settings.enableForceIncludeUsage },
    tokensAsIds: settings.returnTokensAsTokenIds,
    embedPrefixes: embedPrefixes(settings.embedPrefixes),
    version: version(),
    openapi: openapiOf(declared),
    load: () => load(),
    metrics: async () => (await printMetrics(computing.registry)).body,
    accepting: () => accepting && audit.healthy() && (computing.ready?.() ?? true),
  };
  const relay = computing.relay?.(serving, responses.stored);
  const http = await openHttp(parts, {
    declared,
    services,
    observer: registerHttpMetrics(computing.registry),
    ...(relay === undefined ? {} : { relay }),
  });
  // The call that asks for the load is one of the calls, and no load.
  if (settings.enableServerLoadTracking) load = () => Math.max(0, http.counters().calls - 1);
  return {
    http,
    stopAccepting: () => {
      accepting = false;
      // At once: whoever has seen /health fail finds the door shut.
      http.beginDrain();
    },
    endBackground: (graceMs) => responses.stored.close(graceMs),
  };
}
