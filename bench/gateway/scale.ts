/**
 * How two processes on one port share a machine of two cores. Each core has a gateway, a mock upstream and a client; first
 * one core is at work, then both. Clients go to the one port, and the kernel gives their connections to either process.
 * Beside it two nginx that share nothing, not even a port: what the machine's cores give each other.
 *
 *   npm run bench:scale -- [--rounds 5] [--seconds 3]        (behind npm run build)
 *
 * Needs nginx. Prints requests a second of one core and of both in each round, and the medians of their ratios, as JSON.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { mintKey } from "#policy/keys.ts";
import { packaged, serveArguments } from "./castellan.ts";
import { machine } from "./measure.ts";
import { compile, drive, freePort, listening, start, stop } from "./processes.ts";
import { TARGETS } from "./targets.ts";

const { values: options } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, seconds: { type: "string", default: "3" } },
});
const seconds = Number(options.seconds);
const WARM_SECONDS = 10;
/** What met the idle time since the last load is compiled anew. */
const SETTLE_SECONDS = 3;
const CORES = [0, 1];
const folder = mkdtempSync(join(tmpdir(), "castellan-scale-"));
const [client, mock, body] = ["load", "upstream", "body.json"].map((name) => join(folder, name)) as [
  string,
  string,
  string,
];
const keys = Array.from({ length: 10_000 }, () => mintKey().expose());

/** @returns requests a second */
async function rateOf(core: number, port: number, seconds: number): Promise<number> {
  const headers = `Authorization: Bearer ${keys.at(-1)}\r\n`;
  const ran = await drive(
    client,
    { mode: "sat", connections: 64, body, seconds, settle: SETTLE_SECONDS, port, headers, core },
    undefined,
  );
  const failed = ran.errors + ran.badStatus;
  if (failed > 0) throw new Error(`${failed} requests failed`);
  return ran.done / ran.seconds;
}

/** One on each core, on one port, or the first alone. */
async function doors(root: string, name: string, cores: readonly number[], ups: readonly number[]) {
  const port = await freePort();
  const started = [];
  for (const core of cores) {
    const own = join(folder, `${name}-${core}`);
    mkdirSync(own);
    const bench = { folder: own, upstream: ups[core] ?? 0, keys };
    const args = [...(await serveArguments(bench, port, await freePort(), root)), "--reuse-port"];
    const child = start(core, process.execPath, args);
    child.stdout?.resume();
    started.push(child);
  }
  await listening(port);
  return { port, started };
}

async function peer(core: number, ups: readonly number[]) {
  const own = join(folder, `nginx-${core}`);
  mkdirSync(own);
  const begun = await TARGETS["nginx"]?.({ folder: own, upstream: ups[core] ?? 0, keys, core });
  if (begun === undefined || "missing" in begun || begun.child === undefined) throw new Error("nginx is needed");
  return { port: begun.port, child: begun.child };
}

interface Round {
  readonly one: number;
  readonly two: number;
  readonly ratio: number;
}

/** One core alone, then both. @param ports where each core's client goes */
async function round(alone: number, ports: readonly [number, number]): Promise<Round> {
  const one = await rateOf(1, alone, seconds);
  const both = await Promise.all(CORES.map((core) => rateOf(core, ports[core as 0 | 1], seconds)));
  const two = both.reduce((sum, each) => sum + each, 0);
  return { one: Math.round(one), two: Math.round(two), ratio: Number((two / one).toFixed(2)) };
}

function median(rounds: readonly Round[]): number | undefined {
  return rounds.map(({ ratio }) => ratio).sort((a, b) => a - b)[rounds.length >> 1];
}

const root = packaged(folder);
if (root === undefined) throw new Error("npm run build first");
compile(join(import.meta.dirname, "load.c"), client);
compile(join(import.meta.dirname, "upstream.c"), mock);
writeFileSync(
  body,
  JSON.stringify({ model: "m", messages: [{ role: "user", content: "again and again ".repeat(64) }], max_tokens: 64 }),
);
const ups = [await freePort(), await freePort()];
const mocks = CORES.map((core) => start(core, mock, [String(ups[core])]));
for (const child of mocks) child.stdout?.resume();
for (const up of ups) await listening(up);
const one = await doors(root, "one", [1], ups);
const two = await doors(root, "two", CORES, ups);
const nginx = await Promise.all(CORES.map((core) => peer(core, ups)));
await rateOf(1, one.port, WARM_SECONDS);
await Promise.all(CORES.map((core) => rateOf(core, two.port, WARM_SECONDS)));
const all: Record<string, Round[]> = { castellan: [], nginx: [] };
for (let i = 0; i < Number(options.rounds); i++) {
  all["castellan"]?.push(await round(one.port, [two.port, two.port]));
  const [first, second] = nginx.map(({ port }) => port) as [number, number];
  all["nginx"]?.push(await round(second, [first, second]));
}
for (const child of [...one.started, ...two.started, ...nginx.map(({ child }) => child), ...mocks]) await stop(child);
rmSync(folder, { recursive: true, force: true });
const ratio = Object.fromEntries(Object.entries(all).map(([name, rounds]) => [name, median(rounds)]));
console.log(JSON.stringify({ all, ratio, machine: machine() }, null, 2));
