/**
 * Plain throughput: so many sequences at once, each with a prompt of its own, all of them to the same length.
 */
import { execFileSync } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { Pool } from "undici";
import { complete, promptOf } from "./client.ts";
import { machineCpu, type Served, type ServerShape } from "./servers.ts";

export interface Load {
  readonly promptTokens: number;
  readonly maxTokens: number;
}

export interface Run {
  readonly server: string;
  readonly concurrency: number;
  readonly tokensPerSecond: number;
  readonly cpuMsPerToken: number;
  /** Share of the machine that neither the server nor this load generator used; unknown for a library. */
  readonly foreignShare: number | undefined;
  /** Share of the server's CPU that its first process used: HTTP, JSON, text. */
  readonly frontShare: number | undefined;
}

export async function throughput(
  served: Served,
  concurrency: number,
  seed: number,
  { promptTokens, maxTokens }: Load,
): Promise<Run> {
  const pool = new Pool(served.url, { connections: concurrency });
  const before = { cpu: served.cpu(), front: served.frontCpu(), machine: machineCpu(), own: process.cpuUsage() };
  const start = performance.now();
  const wish = (i: number) => ({ prompt: promptOf(promptTokens, seed + i), maxTokens });
  const answers = await Promise.all(Array.from({ length: concurrency }, (_, i) => complete(pool, served, wish(i))));
  const seconds = (performance.now() - start) / 1000;
  const cpu = served.cpu() - before.cpu;
  const own = process.cpuUsage(before.own);
  const foreign = machineCpu() - before.machine - cpu - (own.user + own.system) / 1000;
  await pool.close();
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  return {
    server: served.name,
    concurrency,
    tokensPerSecond: tokens / seconds,
    cpuMsPerToken: cpu / tokens,
    foreignShare: Math.max(0, foreign) / (seconds * 1000 * availableParallelism()),
    frontShare: (served.frontCpu() - before.front) / cpu,
  };
}

/** The same with the library node-llama-cpp, in a process of its own. @param folder where it is installed */
export function libraryThroughput(folder: string, shape: ServerShape, concurrency: number, load: Load): Run {
  const script = join(import.meta.dirname, "peer-node-llama-cpp.mjs");
  const sizes = [concurrency, load.promptTokens, load.maxTokens, shape.threads].map(String);
  const printed = execFileSync(process.execPath, [script, folder, shape.model, ...sizes], { encoding: "utf8" });
  const { tokensPerSecond, cpuMsPerToken } = JSON.parse(printed) as Pick<Run, "tokensPerSecond" | "cpuMsPerToken">;
  const unknown = { foreignShare: undefined, frontShare: undefined };
  return { server: "node-llama-cpp", concurrency, tokensPerSecond, cpuMsPerToken, ...unknown };
}
