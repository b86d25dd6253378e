/**
 * `castellan bench`: sends a named load to a running server and prints throughput and latencies.
 *
 * Times are the client's, over HTTP with streaming. TTFT: request sent to first token; inter-token: between deltas.
 */
import { SingleBar } from "cli-progress";
import { ClientError, type LocalClient } from "#egress/local-client.ts";
import { type ConnectionOptions, chooseModel, connect } from "./connection.ts";
import { LOADS, type LoadRequest, makeLoad } from "./load.ts";
import { FAILURE, fail, USAGE } from "./serve.ts";

export interface BenchOptions extends ConnectionOptions {
  readonly load: string;
  readonly concurrency: number;
  readonly requests: number;
  readonly maxTokens: number;
  readonly seed: number;
  readonly json?: boolean;
}

interface Sample {
  readonly ttft: number;
  readonly gaps: readonly number[];
  readonly promptTokens: number;
  readonly tokens: number;
}

interface Chunk {
  readonly choices?: readonly unknown[];
  readonly usage?: { readonly prompt_tokens?: number; readonly completion_tokens?: number };
  readonly error?: { readonly message?: string };
}

/** @returns the exit code */
export async function runBench(options: BenchOptions): Promise<number> {
  const problem = check(options);
  if (problem !== undefined) return fail(problem, USAGE);
  try {
    const client = connect(options, options.concurrency);
    const model = await chooseModel(client, options.model);
    const load = makeLoad(options.load, options.requests, options.seed);
    const started = performance.now();
    const { samples, failures } = await run(client, model, load, options);
    const report = summarise(options, model, samples, failures, (performance.now() - started) / 1000);
    await client.destroy();
    process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : table(report));
    return samples.length === 0 ? FAILURE : 0;
  } catch (error) {
    if (error instanceof ClientError) return fail(error.message, FAILURE);
    throw error;
  }
}

function check(options: BenchOptions): string | undefined {
  if (!(options.load in LOADS)) return `--load is one of ${Object.keys(LOADS).join(", ")}`;
  for (const [name, most] of [
    ["concurrency", 4096],
    ["requests", 1_000_000],
    ["maxTokens", 1_000_000],
  ] as const) {
    const value = options[name];
    if (!Number.isInteger(value) || value < 1 || value > most)
      return `--${name === "maxTokens" ? "max-tokens" : name} lies between 1 and ${most}`;
  }
  return undefined;
}

async function run(
  client: LocalClient,
  model: string,
  load: readonly LoadRequest[],
  options: BenchOptions,
): Promise<{ samples: Sample[]; failures: Map<string, number> }> {
  const samples: Sample[] = [];
  const failures = new Map<string, number>();
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: "{bar} {value}/{total} requests, {eta_formatted} left", stream: process.stderr })
    : undefined;
  bar?.start(load.length, 0);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let request = load[next++]; request !== undefined; request = load[next++]) {
      try {
        samples.push(await measure(client, model, request, options.maxTokens));
      } catch (error) {
        if (!(error instanceof ClientError)) throw error;
        failures.set(error.message, (failures.get(error.message) ?? 0) + 1);
      }
      bar?.increment();
    }
  };
  await Promise.all(Array.from({ length: Math.min(options.concurrency, load.length) }, worker));
  bar?.stop();
  return { samples, failures };
}

async function measure(client: LocalClient, model: string, request: LoadRequest, maxTokens: number): Promise<Sample> {
  const started = performance.now();
  const times: number[] = [];
  let usage: Chunk["usage"];
  const body = {
    model,
    messages: request.messages,
    max_tokens: maxTokens,
    ignore_eos: true,
    stream: true,
    stream_options: { include_usage: true },
    seed: request.seed,
  };
  for await (const chunk of client.stream("/v1/chat/completions", body)) {
    const { choices, error, usage: counted } = chunk as Chunk;
    if (error !== undefined) throw new ClientError(error.message ?? "the stream failed");
    if (counted !== undefined) usage = counted;
    else if (choices !== undefined && choices.length > 0) times.push(performance.now());
  }
  // The first chunk has the role alone, the last the finish reason alone.
  const tokens = times.slice(1, -1);
  return {
    ttft: (tokens[0] ?? times[0] ?? performance.now()) - started,
    gaps: tokens.slice(1).map((time, i) => time - (tokens[i] as number)),
    promptTokens: usage?.prompt_tokens ?? 0,
    tokens: usage?.completion_tokens ?? 0,
  };
}

export interface Report {
  readonly load: string;
  readonly model: string;
  readonly concurrency: number;
  readonly requests: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly requestsPerSecond: number;
  readonly tokensPerSecond: number;
  readonly promptTokensPerSecond: number;
  /** Milliseconds. */
  readonly ttft: Percentiles;
  readonly interToken: Percentiles;
}

interface Percentiles {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

function summarise(
  options: BenchOptions,
  model: string,
  samples: readonly Sample[],
  failures: ReadonlyMap<string, number>,
  seconds: number,
): Report {
  const total = (of: (sample: Sample) => number): number => samples.reduce((sum, sample) => sum + of(sample), 0);
  return {
    load: options.load,
    model,
    concurrency: options.concurrency,
    requests: samples.length,
    failed: Object.fromEntries(failures),
    seconds,
    requestsPerSecond: samples.length / seconds,
    tokensPerSecond: total((sample) => sample.tokens) / seconds,
    promptTokensPerSecond: total((sample) => sample.promptTokens) / seconds,
    ttft: percentiles(samples.map((sample) => sample.ttft)),
    interToken: percentiles(samples.flatMap((sample) => sample.gaps)),
  };
}

/** Nearest rank. NaN without values. */
export function percentiles(values: readonly number[]): Percentiles {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}

function table(report: Report): string {
  const number = (value: number): string => value.toFixed(1).padStart(10);
  const row = (name: string, p: Percentiles): string =>
    `  ${name.padEnd(18)}${number(p.p50)}${number(p.p90)}${number(p.p99)}`;
  const lines = [
    `${report.model}: load ${report.load}, ${report.concurrency} at once, ${report.requests} requests in ${report.seconds.toFixed(1)} s`,
    "",
    `  output tokens/s   ${number(report.tokensPerSecond)}`,
    `  prompt tokens/s   ${number(report.promptTokensPerSecond)}`,
    `  requests/s        ${number(report.requestsPerSecond)}`,
    "",
    `  ${"milliseconds".padEnd(18)}${"p50".padStart(10)}${"p90".padStart(10)}${"p99".padStart(10)}`,
    row("first token", report.ttft),
    row("between tokens", report.interToken),
    ...Object.entries(report.failed).map(([message, count]) => `  ${count} failed: ${message}`),
  ];
  return `${lines.join("\n")}\n`;
}
