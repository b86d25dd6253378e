/**
 * Flags that vLLM has and this server has not: what each means here. An unknown flag is an error; these deserve a
 * better answer than "unknown". Source: vllm serve --help, names only.
 */

/** Taken and without effect, with a warning: they tune hardware or caches that work otherwise here. */
export const IGNORED: ReadonlyMap<string, "value" | "switch"> = new Map([
  ["gpu-memory-utilization", "value"],
  ["tensor-parallel-size", "value"],
  ["pipeline-parallel-size", "value"],
  ["dtype", "value"],
  ["quantization", "value"],
  ["swap-space", "value"],
  ["seed", "value"],
  ["tokenizer", "value"],
  ["tokenizer-mode", "value"],
  ["load-format", "value"],
  ["generation-config", "value"],
  ["uvicorn-log-level", "value"],
  ["enforce-eager", "switch"],
  ["enable-chunked-prefill", "switch"],
  ["no-enable-chunked-prefill", "switch"],
  ["disable-log-stats", "switch"],
  ["disable-log-requests", "switch"],
  ["no-enable-log-requests", "switch"],
  ["disable-fastapi-docs", "switch"],
] as const);

/** Refused, with the reason: ignoring them would lose something that was asked for. */
export const REFUSED: ReadonlyMap<string, string> = new Map([
  ["trust-remote-code", "no code from a model is ever run"],
  ["trust-request-chat-template", "templates come from the model or the operator, never from a request"],
  ["middleware", "no code is loaded by import path"],
  ["logits-processors", "no code is loaded by import path"],
  ["tool-parser-plugin", "no code is loaded by path"],
  ["reasoning-parser-plugin", "no code is loaded by path"],
  ["enable-prompt-embeds", "serialised tensors are not accepted"],
  ["allowed-origins", "there is no CORS: put the server behind the origin that needs it"],
  ["grpc", "HTTP only"],
  ["fully-sharded-loras", "one machine computes a model here"],
  ["lora-extra-vocab-size", "adapters bring no tokens of their own"],
  ["data-parallel-rank", "all engines run on this machine, and this server spreads the requests"],
  ["data-parallel-address", "all engines run on this machine, and this server spreads the requests"],
  ["root-path", "the routes stand at the root; let the proxy strip its prefix"],
]);
