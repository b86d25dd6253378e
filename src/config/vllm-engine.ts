/**
 * Flags that go to vLLM where vLLM is the engine (--engine vllm), and those that may not: the door in front of it
 * decides who calls, where it listens and what code runs. A closed list: what is on neither is an error, as everywhere.
 * Source: vllm serve --help, names only.
 */

/** What follows the flag: one word, nothing, or words up to the next flag. */
export type PassedShape = "value" | "switch" | "list";

const VALUES = [
  "max-model-len", "max-num-seqs", "max-num-batched-tokens", "max-num-queued-reqs", "max-num-queued-tokens",
  "max-num-partial-prefills", "max-long-partial-prefills", "long-prefill-token-threshold", "stream-interval",
  "scheduling-policy", "tokenizer", "tokenizer-mode", "tokenizer-revision", "revision", "code-revision", "dtype",
  "quantization", "seed", "load-format", "download-dir", "model-loader-extra-config", "config-format", "generation-config",
  "override-generation-config", "hf-overrides", "hf-config-path", "max-logprobs", "logprobs-mode", "runner", "convert",
  "pooler-config", "override-pooler-config", "guided-decoding-backend", "structured-outputs-config",
  "reasoning-parser", "tool-call-parser", "chat-template", "chat-template-content-format", "default-chat-template-kwargs",
  "response-role", "reasoning-effort-budgets", "fingerprint-mode", "fingerprint-value",
  "tensor-parallel-size", "pipeline-parallel-size", "decode-context-parallel-size", "data-parallel-size",
  "data-parallel-size-local", "data-parallel-rank", "data-parallel-start-rank", "data-parallel-address",
  "data-parallel-rpc-port", "data-parallel-backend", "distributed-executor-backend", "expert-placement-strategy",
  "all2all-backend", "eplb-config", "max-parallel-loading-workers", "api-server-count", "nnodes", "node-rank", "master-addr",
  "master-port", "gpu-memory-utilization", "swap-space", "cpu-offload-gb", "block-size", "kv-cache-dtype",
  "kv-cache-memory-bytes", "num-gpu-blocks-override", "prefix-caching-hash-algo", "kv-sharing-fast-prefill",
  "kv-transfer-config", "kv-events-config", "ec-transfer-config", "mamba-cache-dtype", "mamba-ssm-cache-dtype",
  "limit-mm-per-prompt", "mm-processor-kwargs", "mm-processor-cache-gb", "mm-encoder-tp-mode", "media-io-kwargs",
  "max-loras", "max-cpu-loras", "max-lora-rank", "lora-dtype", "lora-extra-vocab-size", "default-mm-loras", "speculative-config",
  "compilation-config", "cudagraph-capture-sizes", "attention-backend", "attention-config", "kernel-config", "additional-config",
  "otlp-traces-endpoint", "collect-detailed-traces", "show-hidden-metrics-for-version", "kv-cache-metrics-sample",
  "max-log-len", "uvicorn-log-level", "disable-access-log-for-endpoints", "device",
] as const; // biome-ignore format: a list of names

const SWITCHES = [
  "enable-prefix-caching", "enable-chunked-prefill", "async-scheduling", "disable-chunked-mm-input", "enforce-eager",
  "disable-sliding-window", "disable-cascade-attn", "skip-tokenizer-init", "enable-expert-parallel", "enable-eplb", "enable-dbo",
  "disable-custom-all-reduce", "data-parallel-hybrid-lb", "data-parallel-external-lb", "enable-lora",
  "enable-sleep-mode", "enable-auto-tool-choice", "exclude-tools-when-tool-choice-none", "enable-prompt-tokens-details",
  "enable-force-include-usage", "enable-server-load-tracking", "enable-tokenizer-info-endpoint",
  "return-tokens-as-token-ids", "disable-log-stats", "kv-cache-metrics", "enable-log-deltas", "disable-uvicorn-access-log",
  "enable-fault-tolerance", "calculate-kv-scales", "interleave-mm-strings", "skip-mm-profiling", "use-tqdm-on-load",
  "enable-flash-late-interaction", "cohere-is-reasoning-model", "fully-sharded-loras",
] as const; // biome-ignore format: a list of names

const LISTS = ["served-model-name", "lora-modules", "ignore-patterns"] as const;

export const PASSED: ReadonlyMap<string, PassedShape> = new Map<string, PassedShape>([
  ...VALUES.map((name) => [name, "value"] as const),
  ...SWITCHES.flatMap((name) => [[name, "switch"] as const, [`no-${name}`, "switch"] as const]),
  ...LISTS.map((name) => [name, "list"] as const),
]);

/** Those that this server reads as well: names, and which routes there are. */
export const SHARED: ReadonlySet<string> = new Set([
  "served-model-name",
  "enable-lora",
  "enable-sleep-mode",
  "enable-tokenizer-info-endpoint",
  "enable-fault-tolerance",
  "enable-server-load-tracking",
  "max-logprobs",
]);

const CODE = "it loads code by name or path into the engine";
const DOOR = "vLLM listens where only this server comes in";

/** What would open a hole in vLLM itself. */
export const HOLES: ReadonlyMap<string, string> = new Map([
  ["trust-remote-code", "it runs Python out of the model's repository"],
  ["trust-request-chat-template", "templates come from the model or the operator, never from a request"],
  ["trust-request-mm-kwargs", "a request would set arguments of the media processors"],
  ["middleware", CODE],
  ["logits-processors", CODE],
  ["logits-processor-pattern", CODE],
  ["tool-parser-plugin", CODE],
  ["reasoning-parser-plugin", CODE],
  ["io-processor-plugin", CODE],
  ["worker-cls", CODE],
  ["worker-extension-cls", CODE],
  ["scheduler-cls", CODE],
  ["enable-prompt-embeds", "serialised tensors would be read from requests"],
  ["enable-mm-embeds", "serialised tensors would be read from requests"],
  ["profiler-config", "profilers write where a request says"],
  ["tool-server", "tools run in this server's sandbox, not in the engine"],
  ["allowed-origins", "there is no CORS: put the server behind the origin that needs it"],
  ["allowed-methods", "there is no CORS"],
  ["allowed-headers", "there is no CORS"],
  ["allow-credentials", "there is no CORS"],
  ["enable-log-requests", "prompts would stand in a log of vLLM's"],
  ["enable-log-outputs", "answers would stand in a log of vLLM's"],
  ["log-config-file", "what vLLM logs is this server's to say"],
  ["log-error-stack", "answers would show vLLM's files"],
  ["grpc", DOOR],
  ["headless", "this server has a door to open in front of vLLM: run the other nodes with vllm itself"],
  ["data-parallel-supervisor-port", DOOR],
  ["root-path", DOOR],
  ["tokens-only", "this server's routes need all of vLLM's"],
  ["h11-max-incomplete-event-size", "requests are bounded here"],
  ["h11-max-header-count", "requests are bounded here"],
]);
