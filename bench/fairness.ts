/**
 * What one tenant's flood does to another's latency: B asks one request after the other, alone; beside 1,000 of A's that
 * never let up; and beside the same flood with B's key in A's tenant and no bounds of tenants on the queue, which is first
 * come first served.
 *
 *   node bench/fairness.ts [requests of B = 30] [flood = 1000]
 *
 * Prints medians and 95th percentiles as JSON, with the machine. The server is the real one, with the demo model.
 */
import { mkdtempSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { makeKey, startServer, type TestServer } from "#test/harness.ts";

const A = { prompt: 32, tokens: 64 };
const B = { prompt: 32, tokens: 16 };
/** Refused requests come again after so long: a flood that did not would be over at once. */
const AGAIN_MS = 200;

interface Load {
  readonly prompt: number;
  readonly tokens: number;
}

async function ask(server: TestServer, key: string, { prompt, tokens }: Load, signal?: AbortSignal): Promise<number> {
  const ids = Array.from({ length: prompt }, () => 5 + Math.floor(Math.random() * 200));
  const response = await server.fetch("/v1/completions", {
    method: "POST",
    key,
    body: JSON.stringify({ model: "castellan-demo", prompt: ids, max_tokens: tokens, ignore_eos: true }),
    ...(signal === undefined ? {} : { signal }),
  });
  await response.arrayBuffer();
  return response.status;
}

/** Keeps `count` requests on their way until the signal. @returns statuses → how many */
async function flood(
  server: TestServer,
  key: string,
  count: number,
  signal: AbortSignal,
): Promise<Record<number, number>> {
  const statuses: Record<number, number> = {};
  const line = async (): Promise<void> => {
    while (!signal.aborted) {
      const status = await ask(server, key, A, signal).catch(() => 0);
      statuses[status] = (statuses[status] ?? 0) + 1;
      if (status !== 200) await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  };
  await Promise.all(Array.from({ length: count }, line));
  return statuses;
}

async function latencies(server: TestServer, key: string, count: number) {
  const times: number[] = [];
  let failed = 0;
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    if ((await ask(server, key, B)) === 200) times.push(performance.now() - start);
    else failed++;
  }
  times.sort((a, b) => a - b);
  const at = (share: number): number => Math.round(times[Math.floor(times.length * share)] ?? Number.NaN);
  return { median: at(0.5), p95: at(0.95), answered: times.length, failed };
}

async function waiting(server: TestServer, key: string): Promise<number> {
  const text = await (await server.fetch("/metrics", { key })).text();
  return Number(/^vllm:num_requests_waiting\{.*\} (\d+)/m.exec(text)?.[1] ?? 0);
}

async function scene(tenantOfB: string, args: readonly string[], requests: number, count: number) {
  const stateDir = join(mkdtempSync(join(tmpdir(), "castellan-fairness-")), "state");
  const a = await makeKey(stateDir, "service", { tenant: "a" });
  const b = await makeKey(stateDir, "service", { tenant: tenantOfB });
  const server = await startServer({ stateDir, args: ["--max-num-seqs", "32", "--disable-access-log", ...args] });
  try {
    await latencies(server, b, 10);
    const alone = await latencies(server, b, requests);
    const stop = new AbortController();
    const flooding = flood(server, a, count, stop.signal);
    let full = 0;
    while (full < Math.min(count, 400) * 0.9) {
      await new Promise((done) => setTimeout(done, 50));
      full = await waiting(server, a);
    }
    const beside = await latencies(server, b, requests);
    stop.abort();
    return { alone, beside, waitingOfA: full, answersToA: await flooding };
  } finally {
    await server.stop();
  }
}

async function main(): Promise<void> {
  const requests = Number(process.argv[2] ?? 30);
  const count = Number(process.argv[3] ?? 1000);
  const fair = await scene("b", [], requests, count);
  // One answer behind the whole queue is enough to see it.
  const fcfs = await scene("a", ["--no-tenant-queue-bounds"], Math.min(requests, 3), count);
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  const result = { bench: "fairness", unit: "ms, B's answers", requests, flood: count, A, B, fair, fcfs, machine };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
}

await main();
