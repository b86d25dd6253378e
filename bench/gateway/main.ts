/**
 * What a gateway costs: Castellan beside nginx, HAProxy, Portkey's gateway and node:http with undici, all in front of one
 * mock upstream, alternating in one run. The upstream and the client have core 0, whoever is measured has core 1.
 *
 *   npm run bench:gateway -- [--rounds 3] [--seconds 3] [--only unary,rate,sse,prompts,memory] [--targets nginx,undici]
 *                            [--keys 10000] [--rate 500] [--warm 10] [--json FILE]
 *
 * Needs gcc and taskset; nginx and HAProxy where they are installed. CPU is what the kernel counts for all threads of
 * the measured process tree. Prints medians and ratios to nginx as JSON, and what others used meanwhile: of cores that
 * this machine gave them (`foreign`), of the measured core that its host did (`stolen`).
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { mintKey } from "#policy/keys.ts";
import { machine } from "./measure.ts";
import { compile, drive, freePort, LOAD_CORE, type Load, listening, type Ran, start, stop } from "./processes.ts";
import { type Bench, TARGETS, type Target } from "./targets.ts";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: "unary,rate,sse,prompts,memory" },
    targets: { type: "string", default: Object.keys(TARGETS).join(",") },
    keys: { type: "string", default: "10000" },
    rate: { type: "string", default: "500" },
    warm: { type: "string", default: "10" },
    json: { type: "string" },
  },
});
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);
const only = new Set(options.only.split(","));

type Scenario = Pick<Load, "mode" | "connections" | "body" | "seconds" | "rate">;

interface Sample extends Ran {
  readonly residentMiB: number | undefined;
}

const folder = mkdtempSync(join(tmpdir(), "castellan-gateway-"));
const client = join(folder, "load");

function body(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

function chat(content: string, more: object = {}): string {
  return JSON.stringify({ model: "m", messages: [{ role: "user", content }], max_tokens: 64, ...more });
}

/** Text with the characters that JSON escapes where people use them. */
function prose(length: number): string {
  return 'The "quick" brown fox jumps over the lazy dog, again and again.\n'
    .repeat(Math.ceil(length / 64))
    .slice(0, length);
}

function stream(everyMs: number): string {
  return chat("Hello", { stream: true, seed: everyMs, max_tokens: 100_000 }).replace('"max_tokens":64,', "");
}

function scenarios(): Readonly<Record<string, Scenario>> {
  const all: Record<string, Scenario> = {
    unary: { mode: "sat", connections: 64, body: join(folder, "small.json"), seconds },
    rate: { mode: "rate", connections: 128, body: join(folder, "small.json"), seconds, rate: Number(options.rate) },
    sse: { mode: "sse", connections: 200, body: body("stream.json", stream(20)), seconds },
    "prompts 220 KB": { mode: "sat", connections: 16, body: body("220k.json", chat(prose(215_000))), seconds },
    "prompts 2 MB": { mode: "sat", connections: 8, body: body("2m.json", chat(prose(2_000_000))), seconds },
    memory: { mode: "hold", connections: 2000, body: body("held.json", stream(1000)), seconds: 3 },
  };
  return Object.fromEntries(
    Object.entries(all).filter(([name]) => only.has(name) || only.has(name.split(" ", 1)[0] ?? "")),
  );
}

async function measure(target: Target, scenario: Scenario): Promise<Sample> {
  const { child, port, headers } = target;
  const load: Load = { ...scenario, port, headers };
  const ran = await drive(client, load, child?.pid);
  return { ...ran, residentMiB: child === undefined ? undefined : Math.round(ran.resident / 2 ** 20) };
}

/** Compilers need some ten thousand calls before they have done their best, and as many events. */
async function warm({ name, child, port, headers }: Target): Promise<void> {
  if (child === undefined) return;
  const { sse } = scenarios();
  const small = {
    mode: "sat",
    connections: 32,
    body: join(folder, "small.json"),
    seconds: Number(options.warm),
  } as const;
  await drive(client, { ...small, port, headers }, child.pid);
  if (sse === undefined || name === "portkey") return;
  await drive(client, { ...sse, seconds: Number(options.warm) / 2, port, headers }, child.pid);
}

function median(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const middle = known[known.length >> 1];
  return middle === undefined ? undefined : Number(middle.toFixed(2));
}

/** What others may have had in a calm round: of a core. */
const CALM = 0.1;

/** Of the rounds in which others had next to nothing, where there are such, and of all otherwise: nothing else differs. */
function summary(all: readonly Sample[]): Record<string, number | undefined> {
  const calm = all.filter(({ foreign, stolen }) => foreign + stolen < CALM);
  const samples = calm.length > 0 ? calm : all;
  const of = (pick: (sample: Sample) => number | undefined): number | undefined => median(samples.map(pick));
  return {
    rounds: all.length,
    calm: calm.length,
    cpuMicroseconds: of(({ cpu }) => cpu),
    perSecond: of(({ done, seconds: took }) => done / took),
    p50: of(({ p50 }) => p50),
    p99: of(({ p99 }) => p99),
    residentMiB: of(({ residentMiB }) => residentMiB),
    failed: all.reduce((sum, { errors, badStatus }) => sum + errors + badStatus, 0),
    foreign: of(({ foreign }) => foreign),
    stolen: of(({ stolen }) => stolen),
  };
}

type Table = Record<string, Record<string, number | undefined>>;

/** Adds what a target has to nginx and to nobody in between. */
function compare(table: Table): Table {
  const { nginx, direct } = table;
  for (const row of Object.values(table)) {
    if (row.cpuMicroseconds !== undefined && nginx?.cpuMicroseconds !== undefined)
      row.timesNginx = Number((row.cpuMicroseconds / nginx.cpuMicroseconds).toFixed(2));
    for (const p of ["p50", "p99"] as const)
      if (row[p] !== undefined && direct?.[p] !== undefined) row[`${p}Added`] = Number((row[p] - direct[p]).toFixed(0));
  }
  return table;
}

async function main(): Promise<void> {
  const upstreamPort = await freePort();
  for (const name of ["load", "upstream"]) compile(join(import.meta.dirname, `${name}.c`), join(folder, name));
  const upstream = start(LOAD_CORE, join(folder, "upstream"), [String(upstreamPort)]);
  upstream.stdout?.resume();
  const keys = Array.from({ length: Number(options.keys) }, () => mintKey().expose());
  const missing: string[] = [];
  body("small.json", chat(prose(1000)));
  const samples = new Map<string, Map<string, Sample[]>>();
  try {
    await listening(upstreamPort);
    for (let round = 0; round < rounds; round++)
      for (const name of options.targets.split(",")) {
        const place = join(folder, name);
        mkdirSync(place, { recursive: true });
        const bench: Bench = { folder: place, upstream: upstreamPort, keys };
        const target = await TARGETS[name]?.(bench);
        if (target === undefined || "missing" in target) {
          if (round === 0) missing.push(target?.missing ?? name);
          continue;
        }
        try {
          await warm(target);
          for (const [what, scenario] of Object.entries(scenarios())) {
            // Its streaming calls fail in the release that is measured, and saturation says what a rate would.
            if (name === "portkey" && (scenario.mode === "sse" || scenario.mode === "hold")) continue;
            const sample = await measure(target, scenario);
            const rows = samples.get(what) ?? new Map<string, Sample[]>();
            samples.set(what, rows.set(name, [...(rows.get(name) ?? []), sample]));
            process.stderr.write(
              `round ${round} ${what} ${name}: ${sample.cpu?.toFixed(1)} us, ${Math.round(sample.done / sample.seconds)}/s, ` +
                `p50 ${sample.p50} p99 ${sample.p99} us, ${sample.residentMiB} MiB, foreign ${sample.foreign.toFixed(2)}, ` +
                `stolen ${sample.stolen.toFixed(2)}, failed ${sample.errors + sample.badStatus}\n`,
            );
          }
        } finally {
          if (target.child !== undefined) await stop(target.child);
        }
      }
  } finally {
    await stop(upstream);
    rmSync(folder, { recursive: true, force: true });
  }
  const tables = Object.fromEntries(
    [...samples].map(([what, rows]) => [
      what,
      compare(Object.fromEntries([...rows].map(([name, list]) => [name, summary(list)]))),
    ]),
  );
  const text = `${JSON.stringify({ bench: "gateway", ...options, missing, tables, machine: machine() }, null, 2)}\n`;
  if (options.json !== undefined) writeFileSync(options.json, text);
  process.stdout.write(text);
}

await main();
