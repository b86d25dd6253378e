/**
 * What a gateway costs: Castellan beside nginx, HAProxy, Portkey's gateway, node:http with undici and bare sockets, all in
 * front of one mock upstream. All are started and warmed up, and in each round asked one after the other. The upstream
 * and the client have core 0, whoever is measured has core 1.
 *
 *   npm run bench:gateway -- [--rounds 3] [--seconds 3] [--only unary,rate,sse,prompts,memory] [--targets nginx,undici]
 *                            [--keys 10000] [--rate 500] [--warm 10] [--settle 3] [--json FILE]
 *
 * Needs gcc and taskset; nginx and HAProxy where they are installed. CPU is what the kernel counts for all threads of
 * the measured process tree. Prints medians, and the median of the ratios to nginx of the same round, as JSON, and what
 * others used meanwhile: of cores that this machine gave them (`foreign`), of the measured core that its host did (`stolen`).
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
    settle: { type: "string", default: "3" },
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
  // Who has had another load until now compiles anew what met objects of another kind.
  const load: Load = { ...scenario, port, headers, settle: Number(options.settle) };
  const ran = await drive(client, load, child?.pid);
  return { ...ran, residentMiB: child === undefined ? undefined : Math.round(ran.resident / 2 ** 20) };
}

/** Compilers need some ten thousand calls before they have done their best, as many that come alone, and as many events. */
async function warm({ name, child, port, headers }: Target): Promise<void> {
  if (child === undefined) return;
  const { sse, rate } = scenarios();
  const small = {
    mode: "sat",
    connections: 32,
    body: join(folder, "small.json"),
    seconds: Number(options.warm),
  } as const;
  await drive(client, { ...small, port, headers }, child.pid);
  if (rate !== undefined) await drive(client, { ...rate, seconds: Number(options.warm), port, headers }, child.pid);
  if (sse === undefined || name === "portkey") return;
  await drive(client, { ...sse, seconds: Number(options.warm) / 2, port, headers }, child.pid);
}

function median(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined).sort((a, b) => a - b);
  const [low, high] = [known[(known.length - 1) >> 1], known[known.length >> 1]];
  return low === undefined || high === undefined ? undefined : Number(((low + high) / 2).toFixed(2));
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

/** By target, one a round. */
type Rows = ReadonlyMap<string, readonly Sample[]>;
type Table = Record<string, Record<string, number | undefined>>;

/** With what each has to nginx in the same round, and to nobody in between. */
function table(rows: Rows): Table {
  const made: Table = Object.fromEntries([...rows].map(([name, samples]) => [name, summary(samples)]));
  const nginx = rows.get("nginx");
  for (const [name, row] of Object.entries(made)) {
    const ratios = (rows.get(name) ?? []).map(({ cpu }, round) => {
      const other = nginx?.[round]?.cpu;
      return cpu === undefined || other === undefined ? undefined : cpu / other;
    });
    row.timesNginx = median(ratios);
    for (const p of ["p50", "p99"] as const) {
      const [own, direct] = [row[p], made.direct?.[p]];
      if (own !== undefined && direct !== undefined) row[`${p}Added`] = Number((own - direct).toFixed(0));
    }
  }
  return made;
}

/** Starts and warms up who is there. @param missing gets why the others are not */
async function begin(upstream: number, missing: string[]): Promise<readonly Target[]> {
  const keys = Array.from({ length: Number(options.keys) }, () => mintKey().expose());
  const begun: Target[] = [];
  try {
    for (const name of options.targets.split(",")) {
      const place = join(folder, name);
      mkdirSync(place, { recursive: true });
      const bench: Bench = { folder: place, upstream, keys };
      const target = await TARGETS[name]?.(bench);
      if (target === undefined || "missing" in target) {
        missing.push(target?.missing ?? name);
        continue;
      }
      begun.push(target);
      await warm(target);
    }
    return begun;
  } catch (error) {
    await end(begun);
    throw error;
  }
}

async function end(targets: readonly Target[]): Promise<void> {
  for (const { child } of targets) if (child !== undefined) await stop(child);
}

/** One after the other, so that what the machine is like in these seconds it is for all. */
async function round(number: number, targets: readonly Target[], samples: Map<string, Map<string, Sample[]>>) {
  for (const [what, scenario] of Object.entries(scenarios()))
    for (const target of targets) {
      const { name } = target;
      // Its streaming calls fail in the release that is measured, and saturation says what a rate would.
      if (name === "portkey" && (scenario.mode === "sse" || scenario.mode === "hold")) continue;
      const sample = await measure(target, scenario);
      const rows = samples.get(what) ?? new Map<string, Sample[]>();
      samples.set(what, rows.set(name, [...(rows.get(name) ?? []), sample]));
      process.stderr.write(
        `round ${number} ${what} ${name}: ${sample.cpu?.toFixed(1)} us, ${Math.round(sample.done / sample.seconds)}/s, ` +
          `p50 ${sample.p50} p99 ${sample.p99} us, ${sample.residentMiB} MiB, foreign ${sample.foreign.toFixed(2)}, ` +
          `stolen ${sample.stolen.toFixed(2)}, failed ${sample.errors + sample.badStatus}\n`,
      );
    }
}

async function main(): Promise<void> {
  const upstreamPort = await freePort();
  for (const name of ["load", "upstream"]) compile(join(import.meta.dirname, `${name}.c`), join(folder, name));
  const upstream = start(LOAD_CORE, join(folder, "upstream"), [String(upstreamPort)]);
  upstream.stdout?.resume();
  const missing: string[] = [];
  body("small.json", chat(prose(1000)));
  const samples = new Map<string, Map<string, Sample[]>>();
  let targets: readonly Target[] = [];
  try {
    await listening(upstreamPort);
    targets = await begin(upstreamPort, missing);
    for (let number = 0; number < rounds; number++) await round(number, targets, samples);
  } finally {
    await end(targets);
    await stop(upstream);
    rmSync(folder, { recursive: true, force: true });
  }
  const tables = Object.fromEntries([...samples].map(([what, rows]) => [what, table(rows)]));
  const text = `${JSON.stringify({ bench: "gateway", ...options, missing, tables, machine: machine() }, null, 2)}\n`;
  if (options.json !== undefined) writeFileSync(options.json, text);
  process.stdout.write(text);
}

await main();
