/**
 * Castellan beside llama.cpp's own llama-server and beside node-llama-cpp: the same model, the same kernels' version, the
 * same load, alternating in one run. Prints medians, and their ratios to llama-server.
 *
 * usage: node bench/engine/main.ts [--llama-server PATH] [--node-llama-cpp FOLDER] [--model FILE.gguf] [--rounds 3]
 *        [--concurrency 1,8,16,32] [--prompt-tokens 128] [--max-tokens 128] [--threads N] [--only throughput|start|loads]
 *        [--loads PART-OF-A-NAME] [--castellan FLAGS] [--json FILE]
 * Without peers only Castellan is measured; without --model a random-weight 125M Q8_0 model is made.
 */
import { mkdtempSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { MID, writeModel } from "#test/fixtures/gguf.ts";
import { type Figure, report } from "./report.ts";
import { SCENARIOS } from "./scenarios.ts";
import { kvBytesOf, type Served, type ServerShape, startCastellan, startLlamaServer } from "./servers.ts";
import { libraryThroughput, type Run, throughput } from "./throughput.ts";

const { values } = parseArgs({
  options: {
    "llama-server": { type: "string" },
    "node-llama-cpp": { type: "string" },
    model: { type: "string" },
    rounds: { type: "string", default: "3" },
    concurrency: { type: "string", default: "1,8,16,32" },
    "prompt-tokens": { type: "string", default: "128" },
    "max-tokens": { type: "string", default: "128" },
    threads: { type: "string", default: String(availableParallelism()) },
    only: { type: "string" },
    loads: { type: "string", default: "" },
    castellan: { type: "string", default: "" },
    json: { type: "string" },
  },
});
const load = { promptTokens: Number(values["prompt-tokens"]), maxTokens: Number(values["max-tokens"]) };
const rounds = Number(values.rounds);
const levels = values.concurrency.split(",").map(Number);
const flags = values.castellan.split(" ").filter((flag) => flag !== "");
/** Holds a prompt of 2,000 tokens and an answer. */
const LONG_WINDOW = 2304;
const LONG_SLOTS = 20;

type Start = () => Promise<Served>;

function modelPath(): string {
  if (values.model !== undefined) return values.model;
  const path = join(mkdtempSync(join(tmpdir(), "castellan-bench-model-")), "mid.gguf");
  writeModel(path, { ...MID, context: 4096 });
  return path;
}

function starters(shape: ServerShape): Start[] {
  const binary = values["llama-server"];
  const own = () => startCastellan(shape, flags);
  return binary === undefined ? [own] : [own, () => startLlamaServer(binary, shape)];
}

async function withServers<T>(starts: readonly Start[], work: (servers: readonly Served[]) => Promise<T>): Promise<T> {
  const servers: Served[] = [];
  try {
    for (const start of starts) servers.push(await start());
    return await work(servers);
  } finally {
    for (const served of servers) await served.stop();
  }
}

const ordered = <T>(list: readonly T[], round: number): readonly T[] => (round % 2 === 0 ? list : list.toReversed());

async function measureThroughput(model: string): Promise<Run[]> {
  const window = Math.ceil((load.promptTokens + load.maxTokens + 1) / 256) * 256;
  const shape = { model, slots: Math.max(...levels), window, threads: Number(values.threads) };
  const runs: Run[] = [];
  const note = (run: Run): void => {
    runs.push(run);
    const foreign = run.foreignShare === undefined ? "" : `  foreign ${(run.foreignShare * 100).toFixed(0)} %`;
    const [speed, cpu] = [run.tokensPerSecond.toFixed(1).padStart(7), run.cpuMsPerToken.toFixed(2).padStart(7)];
    console.log(
      `${run.server.padEnd(15)} c=${String(run.concurrency).padEnd(3)} ${speed} tok/s ${cpu} CPU ms${foreign}`,
    );
  };
  await withServers(starters(shape), async (servers) => {
    for (const served of servers) await throughput(served, Math.min(2, ...levels), 1, load);
    for (let round = 0; round < rounds; round++)
      for (const concurrency of levels)
        for (const served of ordered(servers, round))
          note(await throughput(served, concurrency, 1000 * (round + 1), load));
  });
  const folder = values["node-llama-cpp"];
  if (folder !== undefined)
    for (let round = 0; round < rounds; round++)
      for (const concurrency of levels) note(libraryThroughput(folder, shape, concurrency, load));
  return runs;
}

async function measureLoads(model: string): Promise<Figure[]> {
  const shape = { model, slots: LONG_SLOTS, window: LONG_WINDOW, threads: Number(values.threads) };
  const figures: Figure[] = [];
  const scenarios = SCENARIOS.filter(({ name }) => name.includes(values.loads));
  await withServers(starters(shape), async (servers) => {
    for (let round = 0; round < rounds; round++)
      for (const { name: scenario, unit, run } of scenarios)
        for (const served of ordered(servers, round)) {
          const before = served.cpu();
          const value = await run(served, 10_000 * (round + 1));
          const cpuMs = served.cpu() - before;
          figures.push({ server: served.name, scenario, unit, value, cpuMs });
          console.log(`${served.name.padEnd(15)} ${scenario}: ${value.toFixed(1)} ${unit}, ${cpuMs} CPU ms`);
        }
  });
  return figures;
}

async function measureStart(model: string): Promise<Figure[]> {
  const shape = { model, slots: 32, window: 512, threads: Number(values.threads) };
  const figures: Figure[] = [];
  for (let round = 0; round < rounds; round++)
    for (const start of ordered(starters(shape), round)) {
      const at = performance.now();
      await withServers([start], async ([served]) => {
        if (served === undefined) return;
        const ready = performance.now() - at;
        await throughput(served, 8, 1, { promptTokens: 64, maxTokens: 16 });
        const memory = (served.memory() - kvBytesOf(shape)) / 2 ** 20;
        const of = { server: served.name };
        figures.push({ ...of, scenario: "start to ready", unit: "ms", value: ready });
        figures.push({ ...of, scenario: "memory above weights and cache", unit: "MiB", value: memory });
      });
    }
  return figures;
}

async function main(): Promise<void> {
  const model = modelPath();
  const wanted = (part: string): boolean => values.only === undefined || values.only === part;
  const started = wanted("start") ? await measureStart(model) : [];
  const runs = wanted("throughput") ? await measureThroughput(model) : [];
  const loads = wanted("loads") ? await measureLoads(model) : [];
  const facts = { ...load, threads: Number(values.threads), rounds, flags };
  report({ runs, figures: [...started, ...loads], facts }, values.json);
}

await main();
