/**
 * The ONE table of settings. Flags, variables, the file's keys, --help and docs/reference/settings.md derive from it.
 *
 * Defaults are the safe values. A row that may loosen a wall says which in `loosens`. Names are camelCase here,
 * kebab-case as flags, CASTELLAN_UPPER_CASE as variables. Where vLLM has the same thing the name is vLLM's.
 */
import { REASONING_ALIASES, REASONING_FAMILIES, TOOL_ALIASES, TOOL_FAMILIES } from "#core/parser-families.ts";
import { CAP_ROWS, type CapName, type CapRow } from "#core/request-caps.ts";
import { AUDIT_SETTINGS } from "./audit-settings.ts";
import { BATCH_SETTINGS } from "./batch-settings.ts";
import { EGRESS_SETTINGS } from "./egress-settings.ts";
import { KEY_SETTINGS } from "./key-settings.ts";
import {
  bytes,
  choice,
  integer,
  list,
  numbers,
  type Setting,
  seconds,
  string,
  switched,
  tokens,
  weights,
} from "./kinds.ts";
import { LIMIT_SETTINGS } from "./limit-settings.ts";
import { LORA_SETTINGS } from "./lora-settings.ts";
import { OPERATION_SETTINGS } from "./operation-settings.ts";
import { RESPONSE_SETTINGS } from "./response-settings.ts";
import { CONNECTION_SETTINGS, TLS_SETTINGS } from "./tls-settings.ts";
import { UPSTREAM_SETTINGS } from "./upstream-settings.ts";
import { VLLM_SETTINGS } from "./vllm-settings.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const LISTENERS = "Listeners";
const MODEL = "Model";
const ENGINE = "Engine";
const LIMITS = "Limits of a request";
const API = "API behaviour";
const LIFE = "Lifecycle and logs";

const TOOL_PARSERS = ["auto", ...TOOL_FAMILIES, ...namesOf(TOOL_ALIASES), "none"] as const;
const REASONING_PARSERS = ["auto", ...REASONING_FAMILIES, ...namesOf(REASONING_ALIASES), "none"] as const;

function namesOf<A extends object>(aliases: A): readonly (keyof A)[] {
  return Object.keys(aliases) as (keyof A)[];
}

type CapSettings = { readonly [N in CapName as `max${Capitalize<N>}`]: Setting<number> };

/** The setting of a row of core/request-caps.ts: `n` is maxN, --max-n. */
export function capSettingOf<N extends CapName>(name: N): `max${Capitalize<N>}` {
  return `max${name.charAt(0).toUpperCase()}${name.slice(1)}` as `max${Capitalize<N>}`;
}

function capSettings(): CapSettings {
  const row = ([name, { fallback, bounds, unit, ...rest }]: [string, CapRow]): [string, Setting<number>] => {
    const kind = unit === "bytes" ? bytes : unit === "seconds" ? seconds : integer;
    return [capSettingOf(name as CapName), kind(fallback, bounds, { ...rest, section: LIMITS })];
  };
  return Object.fromEntries(Object.entries<CapRow>(CAP_ROWS).map(row)) as unknown as CapSettings;
}

export const SETTINGS = {
  host: string("127.0.0.1", "address", {
    section: LISTENERS,
    doc: "Address of the public listener.",
    loosens: "a public address without TLS sends keys in the clear",
    unless: ["sslCertfile", "trustProxy"],
  }),
  port: integer(8000, [0, 65_535], { section: LISTENERS, doc: "Port of the public listener; 0 takes a free one." }),
  reusePort: switched(false, {
    section: LISTENERS,
    doc: "Other processes of this user that say so too may listen on the public port: the kernel shares connections out.",
    loosens: "another process of this user may take a part of the callers",
  }),
  uds: string(undefined, "path", {
    section: LISTENERS,
    doc: "Unix socket of the public listener, instead of host and port.",
  }),
  opsHost: string("127.0.0.1", "address", {
    section: LISTENERS,
    doc: "Address of the operations listener.",
    loosens: "operations become reachable from other machines",
  }),
  opsPort: integer(8001, [0, 65_535], {
    section: LISTENERS,
    doc: "Port of the operations listener; 0 takes a free one.",
  }),
  opsUds: string(undefined, "path", {
    section: LISTENERS,
    doc: "Unix socket of the operations listener, instead of host and port.",
  }),
  trustProxy: switched(false, {
    section: LISTENERS,
    doc: "A proxy in front ends TLS: no warning about a public address without it.",
    loosens: "says that somebody else encrypts",
  }),
  trustedProxies: list("network", {
    section: LISTENERS,
    doc: "Proxies whose X-Forwarded-For or Forwarded tells where a caller comes from: CIDR blocks, or unix for a Unix socket.",
    loosens: "says who may tell where callers come from",
  }),
  maxConnections: integer(4096, [1, 1_000_000], { section: LISTENERS, doc: "Connections open at once, per listener." }),
  ...CONNECTION_SETTINGS,
  ...TLS_SETTINGS,

  ...KEY_SETTINGS,
  ...LIMIT_SETTINGS,

  ...AUDIT_SETTINGS,

  ...RESPONSE_SETTINGS,
  ...OPERATION_SETTINGS,
  ...BATCH_SETTINGS,
  ...EGRESS_SETTINGS,

  servedModelName: list("name", {
    section: MODEL,
    doc: "Names that the model answers to; the first is printed in answers.",
    fallbackDoc: "the file's name, or castellan-demo",
  }),
  revision: string(undefined, "revision", {
    section: MODEL,
    doc: "Branch, tag or commit of a hub model; the commit is pinned.",
    fallbackDoc: "main",
  }),
  downloadDir: string(undefined, "path", {
    section: MODEL,
    doc: "Cache of downloaded models (mode 0700).",
    fallbackDoc: "$XDG_CACHE_HOME/castellan, else ~/.cache/castellan",
    flags: ["cache-dir"],
  }),
  hfEndpoint: string("https://huggingface.co", "url", {
    section: MODEL,
    doc: "The hub that hf: references name.",
    variables: ["HF_ENDPOINT"],
  }),
  hfStorageHosts: list("host", {
    section: MODEL,
    doc: "Hosts that the hub may send downloads to: host, host:port or *.domain.",
    fallbackDoc: "the public hub's own storage",
  }),
  hfToken: string(undefined, "token", {
    section: MODEL,
    doc: "Token for the hub; sent to the hub's own host only.",
    variables: ["HF_TOKEN"],
    secret: true,
  }),
  offline: switched(false, { section: MODEL, doc: "Never ask the hub; use the cache.", variables: ["HF_HUB_OFFLINE"] }),
  chatTemplate: string(undefined, "file|text", {
    section: MODEL,
    doc: "Jinja chat template instead of the model's own: a file, or the text.",
  }),
  defaultChatTemplateKwargs: string(undefined, "json", {
    section: MODEL,
    doc: "JSON object of template variables under every request's chat_template_kwargs.",
  }),
  embedPrefixes: string(undefined, "json", {
    section: MODEL,
    doc: 'JSON object from Cohere\'s input_type to what stands in front of a text at /v2/embed: {"search_query": "query: ", "search_document": "passage: "}.',
  }),
  overrideGenerationConfig: string(undefined, "json", {
    section: MODEL,
    doc: "JSON object of sampling defaults: temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens.",
  }),
  toolCallParser: choice("auto", TOOL_PARSERS, {
    section: MODEL,
    doc: "How tool calls are read out of the model's text (docs/tools.md); auto looks at the chat template.",
  }),
  holdToolCalls: switched(true, {
    section: MODEL,
    doc: "Hold the tool calls that the model chooses to the names and schemas of the request's tools.",
  }),
  enableAutoToolChoice: switched(true, { section: MODEL, doc: "Let the model choose tools (tool_choice auto)." }),
  reasoningParser: choice("auto", REASONING_PARSERS, {
    section: MODEL,
    doc: "How reasoning is split from the answer (docs/tools.md); auto looks at the chat template.",
  }),

  runner: choice("auto", ["auto", "generate", "pooling"], {
    section: MODEL,
    doc: "What the model is run for: text, or numbers (embeddings, scores, classes); auto looks at its header.",
  }),
  poolerConfig: string(undefined, "json", {
    section: MODEL,
    doc: "JSON object for pooling: pooling_type (MEAN, CLS, LAST, ALL), use_activation or normalize, dimensions, task.",
    flags: ["override-pooler-config"],
  }),
  hfOverrides: string(undefined, "json", {
    section: MODEL,
    doc: "JSON object of what the header cannot say: is_matryoshka, matryoshka_dimensions.",
  }),

  ...LORA_SETTINGS,
  ...UPSTREAM_SETTINGS,

  ...VLLM_SETTINGS,

  maxModelLen: tokens([16, 1_048_576], {
    section: ENGINE,
    doc: "Tokens a sequence may hold, prompt and output together.",
    fallbackDoc: "what the model was trained for, as far as memory goes",
  }),
  maxNumSeqs: integer(undefined, [1, 256], {
    section: ENGINE,
    doc: "Sequences in a step of an engine at most.",
    fallbackDoc: "32, fewer where memory is short",
  }),
  maxNumBatchedTokens: integer(2048, [16, 65_536], {
    section: ENGINE,
    doc: "Tokens in a step at most, prefill and decode together.",
  }),
  batchInvariant: switched(true, {
    section: ENGINE,
    doc: "The same request and seed give the same tokens in any company; off is quicker for a lone long answer.",
    variables: ["VLLM_BATCH_INVARIANT"],
  }),
  maxNumPrefillTokens: integer(512, [16, 65_536], {
    section: ENGINE,
    doc: "Prompt tokens in a step in which answers are being generated: prompts make these wait no longer than that.",
  }),
  enablePrefixCaching: switched(true, {
    section: ENGINE,
    doc: "Keep what was computed for prompts that start alike; never between tenants.",
  }),
  prefixCachingHashAlgo: choice("sha256", ["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"], {
    section: ENGINE,
    doc: "How cached blocks are named; the xxhash ones do not resist collisions.",
  }),
  prefixCachingHashSeed: string(undefined, "seed", {
    section: ENGINE,
    doc: "Makes the names of cached blocks the same in every process; random without it.",
    variables: ["PYTHONHASHSEED"],
    secret: true,
  }),
  prefixCachingGenerated: switched(false, {
    section: ENGINE,
    doc: "Also reuse what was computed while answering: next turns start sooner, and their answers may depend on it.",
  }),
  kvSpillDir: string(undefined, "folder", {
    section: ENGINE,
    doc: "Prefixes that memory cannot keep go here, encrypted with a key of this start; gone when the server ends.",
  }),
  kvSpillBytes: bytes(10 * GIB, [MIB, 100_000 * GIB], {
    section: ENGINE,
    doc: "Room for them at most, of all engines together.",
  }),
  blockSize: integer(16, [1, 1024], { section: ENGINE, doc: "Tokens of a cached block." }),
  maxNumQueuedReqs: integer(1024, [1, 1_000_000], {
    section: ENGINE,
    doc: "Sequences open at once, waiting or running; over it the answer is 503.",
  }),
  schedulingPolicy: choice("fcfs", ["fcfs", "priority"], {
    section: ENGINE,
    doc: "Who waits: first come first served within a tenant's share, or the request's priority before that.",
  }),
  tenantWeights: weights("tenant=weight", {
    section: ENGINE,
    doc: "Shares of the engine when there is more work than it can do; a tenant that is not named has 1.",
    fallbackDoc: "1 each",
  }),
  kvCacheMemoryBytes: bytes(undefined, [MIB, 1024 * GIB], {
    section: ENGINE,
    doc: "Memory for the KV cache, of all engines together.",
    fallbackDoc: "40 % of the free memory",
  }),
  speculativeConfig: string(undefined, "json", {
    section: ENGINE,
    doc: "Speculative decoding: a JSON object with num_speculative_tokens, and a draft model or prompt_lookup_max.",
  }),
  dataParallelSize: integer(1, [1, 64], {
    section: ENGINE,
    doc: "Engine processes, each with the whole model, a KV cache and --max-num-seqs of its own.",
  }),
  threads: integer(0, [0, 1024], {
    section: ENGINE,
    doc: "Compute threads of all engines together; 0 = one a processor, or a single one an engine for very small models.",
  }),
  device: choice("auto", ["auto", "cpu", "cuda", "vulkan", "metal"], {
    section: ENGINE,
    doc: "What computes; auto is a GPU whose kernels are installed (@node-llama-cpp/linux-x64-cuda and kin), else the CPU.",
  }),
  gpuLayers: integer(undefined, [-1, 10_000], {
    section: ENGINE,
    doc: "Layers on the GPU, -1 = all.",
    fallbackDoc: "all where there is one",
    flags: ["n-gpu-layers"],
  }),
  tensorSplit: numbers([0, 1_000_000], {
    section: ENGINE,
    doc: "How layers are shared among several GPUs, as proportions: 3,1.",
    fallbackDoc: "by their memory",
  }),
  engineStartTimeout: seconds(600, [1, 86_400], {
    section: ENGINE,
    doc: "How long loading the model may take.",
    variables: ["VLLM_ENGINE_READY_TIMEOUT_S"],
  }),
  engineStallTimeout: seconds(30, [1, 86_400], {
    section: ENGINE,
    doc: "Work without a step for so long turns /health to 503.",
  }),
  engineKillTimeout: seconds(300, [1, 86_400], {
    section: ENGINE,
    doc: "Stalled for so long, the engine is ended and started again.",
    variables: ["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"],
  }),

  ...capSettings(),
  requestTimeout: seconds(600, [1, 600], {
    section: LIMITS,
    doc: "Until an answer is complete; routes have limits of their own, which this lowers.",
  }),
  streamStallTimeout: seconds(60, [1, 3600], {
    section: LIMITS,
    doc: "A client that reads nothing of its stream for so long is cut off.",
  }),

  enableForceIncludeUsage: switched(false, { section: API, doc: "A usage chunk at the end of every stream." }),
  enablePromptTokensDetails: switched(false, {
    section: API,
    doc: "cached_tokens in usage.",
    loosens: "shows what the prefix cache holds",
  }),
  enableServerLoadTracking: switched(false, { section: API, doc: "Make /load count." }),
  enableRequestIdHeaders: switched(false, { section: API, doc: "X-Request-Id on answers." }),
  returnTokensAsTokenIds: switched(false, { section: API, doc: "Tokens in logprobs as token_id:N." }),
  sseKeepAliveInterval: seconds(0, [0, 3600], {
    section: API,
    doc: "Comment lines while a stream is silent; 0 = none.",
  }),

  shutdownTimeout: seconds(30, [0, 86_400], {
    section: LIFE,
    doc: "How long running answers may go on after SIGTERM.",
  }),
  logLevel: choice("info", ["debug", "info", "warn", "error", "silent"], {
    section: LIFE,
    doc: "What is logged, as JSON lines on stderr.",
  }),
  disableAccessLog: switched(false, {
    section: LIFE,
    doc: "No record a request.",
    flags: ["disable-uvicorn-access-log"],
  }),
  firstAnswer: switched(false, {
    section: LIFE,
    doc: "Ask the model one question after start, and show the answer and the speed.",
  }),
} as const satisfies Record<string, Setting<unknown>>;

export type SettingName = keyof typeof SETTINGS;

type ValueOf<S> = S extends Setting<infer T> ? T : never;

/** What the app sees: every setting, parsed and bounded. */
export type Settings = { readonly [N in SettingName]: ValueOf<(typeof SETTINGS)[N]> };

export function flagOf(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

export function variableOf(name: string): string {
  return `CASTELLAN_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/** Rows in table order, for help and docs. */
export function settingRows(): readonly (readonly [SettingName, Setting<unknown>])[] {
  return Object.entries(SETTINGS) as unknown as [SettingName, Setting<unknown>][];
}
