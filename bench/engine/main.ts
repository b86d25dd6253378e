/**
 * Castellan beside llama.cpp's own llama-server: the same model, the same kernels' version, the same load over HTTP with
 * streaming, alternating in one run. Prints aggregate tokens/s and server CPU per token, and their ratios.
 *
 * usage: node bench/engine/main.ts --llama-server PATH [--model FILE.gguf] [--rounds 3] [--concurrency 1,8,32]
 *        [--prompt-tokens 128] [--max-tokens 128] [--threads N] [--json FILE]
 * Without --llama-server only Castellan is measured; without --model a random-weight 125M Q8_0 model is made.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Pool } from "undici";
import { MID, writeModel } from "#test/fixtures/gguf.ts";
import { machineCpu, type Served, startCastellan, startLlamaServer } from "./servers.ts";

const { values } = parseArgs({
  options: {
    "llama-server": { type: "string" },
    model: { type: "string" },
    rounds: { type: "string", default: "3" },
    concurrency: { type: "string", default: "1,8,32" },
    "prompt-tokens": { type: "string", default: "128" },
    "max-tokens": { type: "string", default: "128" },
    threads: { type: "string", default: String(availableParallelism()) },
    json: { type: "string" },
  },
});
const promptTokens = Number(values["prompt-tokens"]);
const maxTokens = Number(values["max-tokens"]);
const rounds = Number(values.rounds);
const levels = values.concurrency.split(",").map(Number);
const VOCABULARY = 30_000;

interface Run {
  readonly server: string;
  readonly concurrency: number;
  readonly tokensPerSecond: number;
  readonly cpuMsPerToken: number;
  /** Share of the machine that neither the server nor this load generator used. */
  readonly foreignShare: number;
}

/** Prompts are tokens, so that neither server's tokenizer is measured; each is its own, so that no cache helps. */
function prompt(seed: number): number[] {
  return Array.from({ length: promptTokens }, (_, i) => (i * 7919 + seed * 104_729) % VOCABULARY);
}

async function complete(pool: Pool, served: Served, seed: number): Promise<number> {
  const { statusCode, body } = await pool.request({
    method: "POST",
    path: "/v1/completions",
    headers: { ...served.headers, "content-type": "application/json" },
    body: JSON.stringify({
      model: "m",
      prompt: prompt(seed),
      max_tokens: maxTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
      cache_prompt: false,
    }),
    bodyTimeout: 0,
    headersTimeout: 0,
  });
  const text = await body.text();
  if (statusCode !== 200) throw new Error(`${served.name} answered ${statusCode}: ${text.slice(0, 300)}`);
  const counts = [...text.matchAll(/"completion_tokens":\s*(\d+)/g)].map((match) => Number(match[1]));
  return counts.at(-1) ?? 0;
}

async function measure(served: Served, concurrency: number, seed: number): Promise<Run> {
  const pool = new Pool(served.url, { connections: concurrency });
  const before = { server: served.cpu(), machine: machineCpu(), own: process.cpuUsage(), at: performance.now() };
  const counts = await Promise.all(Array.from({ length: concurrency }, (_, i) => complete(pool, served, seed + i)));
  const seconds = (performance.now() - before.at) / 1000;
  const server = served.cpu() - before.server;
  const own = process.cpuUsage(before.own);
  await pool.close();
  const tokens = counts.reduce((a, b) => a + b, 0);
  if (tokens !== concurrency * maxTokens)
    throw new Error(`${served.name} made ${tokens} tokens, not ${concurrency * maxTokens}`);
  const foreign = machineCpu() - before.machine - server - (own.user + own.system) / 1000;
  return {
    server: served.name,
    concurrency,
    tokensPerSecond: tokens / seconds,
    cpuMsPerToken: server / tokens,
    foreignShare: Math.max(0, foreign) / (seconds * 1000 * availableParallelism()),
  };
}

function modelPath(): string {
  if (values.model !== undefined) return values.model;
  const path = join(mkdtempSync(join(tmpdir(), "castellan-bench-model-")), "mid.gguf");
  writeModel(path, MID);
  return path;
}

async function main(): Promise<void> {
  const shape = {
    model: modelPath(),
    slots: Math.max(...levels),
    window: Math.ceil((promptTokens + maxTokens + 1) / 256) * 256,
    threads: Number(values.threads),
  };
  const servers: Served[] = [await startCastellan(shape)];
  if (values["llama-server"] !== undefined) servers.push(await startLlamaServer(values["llama-server"], shape));
  const runs: Run[] = [];
  try {
    for (const served of servers) await measure(served, Math.min(2, ...levels), 1);
    for (let round = 0; round < rounds; round++) {
      for (const concurrency of levels) {
        for (const served of round % 2 === 0 ? servers : servers.toReversed()) {
          const run = await measure(served, concurrency, 1000 * (round + 1));
          runs.push(run);
          console.log(
            `${run.server.padEnd(13)} c=${String(concurrency).padEnd(3)} ${run.tokensPerSecond.toFixed(1).padStart(7)} tok/s ${run.cpuMsPerToken.toFixed(2).padStart(7)} CPU ms/token  foreign ${(run.foreignShare * 100).toFixed(0)} %`,
          );
        }
      }
    }
  } finally {
    for (const served of servers) await served.stop();
  }
  report(
    runs,
    servers.map(({ name }) => name),
  );
}

const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor((list.length - 1) / 2)] ?? Number.NaN;

function report(runs: readonly Run[], names: readonly string[]): void {
  const rows = levels.map((concurrency) => {
    const of = (name: string) => runs.filter((run) => run.server === name && run.concurrency === concurrency);
    return {
      concurrency,
      servers: names.map((name) => ({
        name,
        best: Math.max(...of(name).map((run) => run.tokensPerSecond)),
        median: median(of(name).map((run) => run.tokensPerSecond)),
        cpuMsPerToken: median(of(name).map((run) => run.cpuMsPerToken)),
      })),
    };
  });
  console.log(
    "\n| c | server | best tok/s | median tok/s | CPU ms/token | median ratio | CPU ratio |\n|---|---|---|---|---|---|---|",
  );
  for (const { concurrency, servers } of rows) {
    const peer = servers[1];
    for (const s of servers) {
      const ratio =
        peer === undefined || s === peer
          ? ["", ""]
          : [(s.median / peer.median).toFixed(2), (s.cpuMsPerToken / peer.cpuMsPerToken).toFixed(2)];
      console.log(
        `| ${concurrency} | ${s.name} | ${s.best.toFixed(1)} | ${s.median.toFixed(1)} | ${s.cpuMsPerToken.toFixed(2)} | ${ratio.join(" | ")} |`,
      );
    }
  }
  if (values.json === undefined) return;
  const machine = { cpu: cpus()[0]?.model, processors: availableParallelism(), node: process.version };
  writeFileSync(
    values.json,
    `${JSON.stringify({ machine, promptTokens, maxTokens, threads: Number(values.threads), rows, runs }, null, 2)}\n`,
  );
}

await main();
