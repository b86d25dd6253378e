/**
 * Builds the server out of its parts: the one place that constructs. Nothing listens yet.
 */
import { stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import { createRegistry, printMetrics } from "#base/metrics.ts";
import type { Redact } from "#base/redact.ts";
import type { Environment } from "#config/environment.ts";
import { capSettingOf, type Settings } from "#config/settings.ts";
import { CHARACTERS_PER_TOKEN } from "#core/model.ts";
import { ownedKey } from "#core/owned.ts";
import { capsOf } from "#core/request-caps.ts";
import type { ResponseStore } from "#core/responses.ts";
import { PlatformError } from "#engine/native/locate.ts";
import { type OwnedTokenizer, openTokenizer } from "#engine/native/tokenizer.ts";
import type { EngineHandle } from "#engine/options.ts";
import { openapi } from "#http/openapi.ts";
import type { AnyRoute, ListenerPlane } from "#http/route.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Gate } from "#policy/gate.ts";
import { registerResponseMetrics } from "#policy/responses/metrics.ts";
import type { DatabaseResponses } from "#policy/responses/store.ts";
import { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import { pairTemplate } from "#prompt/pair-template.ts";
import { modelTemplate, type Rendered } from "#prompt/template.ts";
import { routes, type Services } from "#routes/index.ts";
import type { Administration } from "#serving/administration.ts";
import type { Serving } from "#serving/context.ts";
import { registerHttpMetrics } from "#serving/http-metrics.ts";
import { registerMetrics, type VllmMetrics } from "#serving/metrics.ts";
import { Models, type ServedModel } from "#serving/models.ts";
import { makeOutput } from "#serving/output.ts";
import { Responses } from "#serving/responses.ts";
import { byVersion } from "#wire/anthropic/dialect.ts";
import { openai } from "#wire/openai/dialect.ts";
import type { Audit } from "./audit.ts";
import type { BatchWork } from "./batches.ts";
import type { EgressRecords } from "./egress.ts";
import { embedPrefixes, generationDefaults, templateKwargs } from "./generation-config.ts";
import type { Launched } from "./launch.ts";
import type { Limits } from "./limits.ts";
import { loadAdapters } from "./lora.ts";
import { chatTemplateText, type ModelSource } from "./model-source.ts";
import { openOperations } from "./operations.ts";
import { parsersFor } from "./parsers.ts";
import { version } from "./paths.ts";
import type { Policy } from "./policy.ts";
import { responseOptions } from "./responses.ts";
import type { Sizing } from "./sizing.ts";
import { StartupError } from "./startup-error.ts";
import { placed, switchedOff } from "./switches.ts";
import { registerTlsMetrics, type Tls } from "./tls.ts";

export interface Server {
  readonly http: Http;
  readonly engine: EngineHandle;
  readonly sizing: Sizing;
  readonly names: readonly string[];
  /** False: the model is run for numbers. */
  readonly generates: boolean;
  /** /health says 503 from now on. */
  stopAccepting(): void;
  /** Responses in the background may go on for so long; then they fail. */
  endBackground(graceMs: number): Promise<void>;
  /** Engine and tokenizer; after http is closed. */
  closeModel(): Promise<void>;
}

export interface Parts {
  readonly settings: Settings;
  readonly env: Environment;
  readonly source: ModelSource;
  readonly launched: Launched;
  readonly gate: Gate;
  readonly policy: Pick<Policy, "current">;
  /** Whether calls can be recorded, its metrics, and where changes are told. */
  readonly audit: Pick<Audit, "healthy" | "register" | "event">;
  readonly egress: Pick<EgressRecords, "register">;
  readonly redact: Redact;
  readonly limits: Pick<Limits, "observe">;
  readonly admin: Administration;
  readonly batchWork: Pick<BatchWork, "files" | "batches" | "register">;
  /** Undefined: none are kept. */
  readonly responses: (ResponseStore & Pick<DatabaseResponses, "totals">) | undefined;
  readonly tls: Tls;
  readonly client: FindClient;
  readonly log: Log;
}

/** @throws StartupError | what the parts throw for people to read */
export async function compose(parts: Parts): Promise<Server> {
  const { settings, source, launched } = parts;
  const { sizing, pooling } = launched;
  const names: [string, ...string[]] = [
    settings.servedModelName[0] ?? source.name,
    ...settings.servedModelName.slice(1),
  ];
  const registry = createRegistry();
  registerTlsMetrics(registry, parts.tls);
  parts.limits.observe(registry);
  const served: ServedModel[] = [];
  const metrics = registerMetrics({
    registry,
    contextLength: sizing.contextLength,
    models: () => served,
    ...(settings.enableLora ? { maxAdapters: settings.maxLoras } : {}),
    cacheConfig: {
      max_num_seqs: String(sizing.maxNumSeqs),
      max_model_len: String(sizing.contextLength),
      cache_dtype: "f16",
      block_size: String(settings.blockSize),
      num_gpu_blocks: String(sizing.maxNumSeqs * Math.floor(sizing.contextLength / settings.blockSize)),
      enable_prefix_caching: settings.enablePrefixCaching ? "True" : "False",
      prefix_caching_hash_algo: settings.prefixCachingHashAlgo,
    },
  });
  parts.audit.register(registry);
  parts.batchWork.register(registry);
  registerResponseMetrics(registry, parts.responses);
  parts.egress.register(registry);
  launched.observe(metrics.engineObserver(names[0]));
  const { tokenizer, engine } = await openModel(parts);
  served.push(servedModel(parts, names, engine, tokenizer));
  let accepting = true;
  const { http, responses } = await createServer(parts, {
    engine,
    served,
    metrics,
    accepting: () => accepting && parts.audit.healthy(),
    print: async () => (await printMetrics(registry)).body,
    observe: registerHttpMetrics(registry),
  }).catch(async (error) => {
    await engine.close();
    tokenizer.close();
    throw error;
  });
  return {
    http,
    engine,
    sizing: { ...sizing, contextLength: engine.model.contextLength },
    names,
    generates: pooling === undefined,
    stopAccepting: () => {
      accepting = false;
      // At once: whoever has seen /health fail finds the door shut.
      http.beginDrain();
    },
    endBackground: (graceMs) => responses.close(graceMs),
    closeModel: async () => {
      await engine.close();
      tokenizer.close();
    },
  };
}

/** The vocabulary is read while the engine makes its context. */
async function openModel({ source, launched }: Parts): Promise<{ tokenizer: OwnedTokenizer; engine: EngineHandle }> {
  await launched.tried;
  let tokenizer: OwnedTokenizer;
  try {
    tokenizer = openTokenizer({
      modelPath: source.path,
      maxCharacters: launched.sizing.contextLength * CHARACTERS_PER_TOKEN,
    });
  } catch (error) {
    await (await launched.engine).close();
    throw error instanceof PlatformError ? new StartupError(error.message) : error;
  }
  try {
    return { tokenizer, engine: await launched.engine };
  } catch (error) {
    tokenizer.close();
    throw error;
  }
}

function servedModel(
  { settings, source, launched: { pooling } }: Parts,
  names: readonly [string, ...string[]],
  engine: EngineHandle,
  tokenizer: OwnedTokenizer,
): ServedModel {
  const given = chatTemplateText(settings.chatTemplate);
  const chat = given ?? source.facts.chatTemplate;
  const template = modelTemplate(chat);
  const kwargs = templateKwargs(settings.defaultChatTemplateKwargs);
  const scores = pooling?.tasks.includes("score") ? (given ?? source.facts.rerankTemplate) : undefined;
  const pairs = scores === undefined ? undefined : withKwargs(pairTemplate(scores), kwargs);
  return {
    names,
    backend: engine,
    tokenizer,
    template: withKwargs(template, kwargs),
    ...(pairs === undefined ? {} : { pairs }),
    defaults: generationDefaults(settings.overrideGenerationConfig),
    parsers: parsersFor(settings, chat ?? ""),
  };
}

type Kwargs = Readonly<Record<string, unknown>>;

/** The operator's variables under every request's own. */
function withKwargs<I extends { readonly kwargs: Kwargs }, T extends { render(input: I): Rendered }>(
  template: T,
  kwargs: Kwargs,
): T {
  return { ...template, render: (input: I) => template.render({ ...input, kwargs: { ...kwargs, ...input.kwargs } }) };
}

/** What a tenant's batches get of the engine beside somebody who waits for an answer. */
const BATCH_WEIGHT = 0.05;

function sharesOf(weightOf: (tenant: string) => number): Services["serving"]["shareOf"] {
  return ({ tenant, behind }) =>
    behind === true
      ? { key: ownedKey(tenant, "batch"), weight: weightOf(tenant) * BATCH_WEIGHT }
      : { key: tenant, weight: weightOf(tenant) };
}

interface Inner {
  readonly engine: EngineHandle;
  readonly served: readonly ServedModel[];
  readonly metrics: VllmMetrics;
  readonly accepting: () => boolean;
  readonly print: () => Promise<string>;
  readonly observe: ReturnType<typeof registerHttpMetrics>;
}

function openServing({ settings, policy }: Parts, inner: Inner, models: Models): Serving {
  const observers = new Map(inner.served.map((model) => [model, inner.metrics.observerOf(model)]));
  const weightOf = (tenant: string): number =>
    policy.current().tenants.of(tenant)?.weight ?? settings.tenantWeights.get(tenant) ?? 1;
  return {
    models,
    caps: capsOf((_row, name) => settings[capSettingOf(name)]),
    priorities: settings.schedulingPolicy === "priority",
    makeOutput,
    grammars: new GrammarCompiler(),
    observerOf: (model) => observers.get(model.lora?.base ?? model) ?? inner.metrics.observerOf(model),
    shareOf: sharesOf(weightOf),
  };
}

/** Made when it is asked for first: it takes longer than an answer should, once. */
function openapiOf(declared: readonly AnyRoute<Services>[]): Services["openapi"] {
  const made = new Map<ListenerPlane, string>();
  return (plane) => {
    const text = made.get(plane) ?? stringifyJson(openapi(declared, version(), plane));
    made.set(plane, text);
    return text;
  };
}

async function createServer(parts: Parts, inner: Inner): Promise<{ http: Http; responses: Responses }> {
  const { settings, gate, client, admin, redact, log } = parts;
  const [first, ...rest] = inner.served;
  if (first === undefined) throw new StartupError("no model is served");
  const models = new Models([first, ...rest]);
  const serving = openServing(parts, inner, models);
  const responses = new Responses({ serving, store: parts.responses, ...responseOptions(settings), log });
  let load = (): number => 0;
  const declared = routes
    .filter((route) => switchedOff(route, settings) === undefined)
    .map((route) => placed(route, settings));
  const services: Services = {
    serving,
    responses,
    adapters: await loadAdapters({
      settings,
      env: parts.env,
      models,
      base: first,
      modelPath: parts.source.path,
      loader: inner.engine,
      policy: parts.policy,
      record: parts.audit.event,
    }),
    admin,
    files: parts.batchWork.files,
    batches: parts.batchWork.batches,
    operations: openOperations({ settings, source: parts.source, engine: inner.engine, record: parts.audit.event }),
    caps: serving.caps,
    usage: { cachedTokens: settings.enablePromptTokensDetails, always: settings.enableForceIncludeUsage },
    tokensAsIds: settings.returnTokensAsTokenIds,
    embedPrefixes: embedPrefixes(settings.embedPrefixes),
    version: version(),
    openapi: openapiOf(declared),
    load: () => load(),
    metrics: inner.print,
    accepting: inner.accepting,
  };
  const http = await createHttp({
    routes: declared,
    services,
    gate,
    client,
    dialect: openai,
    orBy: byVersion,
    options: {
      maxBodyBytes: settings.maxBodyBytes,
      maxUploadBytes: settings.maxUploadBytes,
      maxAudioBytes: settings.maxAudioMegabytes * 1024 ** 2,
      maxTimeoutMs: settings.requestTimeout * 1000,
      redact,
      requestIdHeader: settings.enableRequestIdHeaders,
      stallTimeoutMs: settings.streamStallTimeout * 1000,
      sseKeepAliveMs: settings.sseKeepAliveInterval * 1000,
      maxConnections: settings.maxConnections,
      maxConnectionsPerAddress: settings.maxConnectionsPerAddress,
      proxies: settings.trustedProxies.flatMap((item) => item.split(",")).filter((item) => item !== "unix"),
      maxConnectionAgeMs: settings.maxConnectionAge * 1000,
      accessLog: !settings.disableAccessLog,
    },
    observer: inner.observe,
    log,
  });
  // The call that asks for the load is one of the calls, and no load.
  if (settings.enableServerLoadTracking) load = () => Math.max(0, http.counters().calls - 1);
  return { http, responses };
}
