/**
 * What knowing the caller costs: a look-up among 1 to 1,000,000 keys, what the corridor pays for authorization with
 * 100,000 keys beside a run whose gate is stubbed out, memory a key, and loading from SQLite.
 *
 *   node --expose-gc bench/auth.ts [--rounds 9] [--requests 20000] [--load 1000000]
 *
 * A key that comes back is found by a digest that is kept (_digest-cache.ts); one of more keys than that keeps pays for
 * the whole. Both are measured: `known` goes through thousands of keys that have been there before, `first` through more
 * than are kept, so that none of them is. Prints JSON, with the machine.
 */

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { z } from "zod";
import type { Dialect } from "#core/dialect.ts";
import { UNMETERED } from "#core/metering.ts";
import { key } from "#http/access.ts";
import { json } from "#http/reply.ts";
import { defineRoute } from "#http/route.ts";
import { createHttp } from "#http/server.ts";
import { authorize } from "#policy/authorize.ts";
import { plainGate } from "#policy/gate.ts";
import { createIdentify, type Identify } from "#policy/identify.ts";
import { KeyFeed } from "#policy/key-feed.ts";
import { KeySet, keyDigest, mintKey } from "#policy/keys.ts";
import { NO_PEER } from "#policy/peer.ts";
import { principalOf } from "#policy/roles.ts";
import { openStateDirectory } from "#policy/state.ts";
import { openStore, type Store } from "#policy/store/store.ts";

const COUNTS = [1, 1000, 100_000, 1_000_000] as const;
const CORRIDOR_KEYS = 100_000;
/** Keys that come back. */
const PRESENTED = 4000;
/** More than digests and principals are kept of. */
const MANY = 40_000;
const LOOK_UPS = 200_000;
const CONNECTIONS = 16;
const BODY = JSON.stringify({ model: "demo", messages: [{ role: "user", content: "Hello there, how are you?" }] });

const pepper = randomBytes(32);
const profile = principalOf({ id: "", tenant: "default", role: "user" });

interface Filled {
  readonly set: KeySet;
  /** Of keys that are in it, in no order, and that come back. */
  readonly tokens: readonly string[];
  /** Of so many that none is remembered when it comes back; as many as there are keys, where those are fewer. */
  readonly many: readonly string[];
}

/** Digests are random, as those of real keys are; only the presented ones have a key. */
function fill(count: number): Filled {
  const set = new KeySet(pepper);
  set.reserve(count);
  const many = Array.from({ length: Math.min(count, MANY) }, () => mintKey().expose());
  const every = Math.max(1, Math.floor(count / many.length));
  for (let n = 0; n < count; n++) {
    const token = n % every === 0 ? many[n / every] : undefined;
    const digest = token === undefined ? randomBytes(32) : keyDigest(pepper, token);
    set.put({ id: `key_${n.toString(36).padStart(16, "0")}`, digest, profile, stored: true });
  }
  return { set, tokens: many.slice(0, PRESENTED), many };
}

/** Nanoseconds of this thread's CPU a call. */
function cpuOf(calls: number, call: (n: number) => void): number {
  const before = process.threadCpuUsage();
  for (let n = 0; n < calls; n++) call(n);
  const { user, system } = process.threadCpuUsage(before);
  return ((user + system) * 1000) / calls;
}

function lookUps(sets: ReadonlyMap<number, Filled>, rounds: number) {
  const samples = new Map(
    [...sets.keys()].map((count) => [count, { hit: [] as number[], first: [] as number[], miss: [] as number[] }]),
  );
  const strangers = Array.from({ length: PRESENTED }, () => mintKey().expose());
  const refused = (set: KeySet, token: string): void => {
    try {
      set.find(token);
    } catch {
      // As it should be.
    }
  };
  for (let round = -1; round < rounds; round++)
    for (const [count, { set, tokens, many }] of sets) {
      const first = cpuOf(many.length, (n) => set.find(many[n] ?? ""));
      const hit = cpuOf(LOOK_UPS, (n) => set.find(tokens[(n * 7919) % tokens.length] ?? ""));
      const miss = cpuOf(LOOK_UPS / 10, (n) => refused(set, strangers[n % strangers.length] ?? ""));
      if (round < 0) continue;
      samples.get(count)?.hit.push(hit);
      if (many.length === MANY) samples.get(count)?.first.push(first);
      samples.get(count)?.miss.push(miss);
    }
  return Object.fromEntries(
    [...samples].map(([count, { hit, first, miss }]) => [
      count,
      {
        knownNs: Math.round(median(hit)),
        ...(first.length === 0 ? {} : { firstNs: Math.round(median(first)) }),
        unknownNs: Math.round(median(miss)),
      },
    ]),
  );
}

/** Identify and authorize by themselves, from a request's headers. */
function identifyAlone({ set, tokens, many }: Filled) {
  return { keys: CORRIDOR_KEYS, known: identifying(set, tokens, 7919), first: identifying(set, many, 1) };
}

function identifying(set: KeySet, tokens: readonly string[], step: number) {
  const identify = createIdentify(set);
  const headers = tokens.map((token) => [
    "Host",
    "x",
    "User-Agent",
    "bench",
    "Accept",
    "*/*",
    "Content-Type",
    "application/json",
    "Content-Length",
    "90",
    "Authorization",
    `Bearer ${token}`,
  ]);
  const call = (n: number): void => {
    const found = identify(headers[(n * step) % headers.length] ?? [], "openai", NO_PEER);
    if (!(found instanceof Promise)) authorize(found, "inference", UNMETERED);
  };
  for (let n = 0; n < 50_000; n++) call(n);
  const times = new Float64Array(100_000);
  for (let n = 0; n < times.length; n++) {
    const started = process.hrtime.bigint();
    call(n);
    times[n] = Number(process.hrtime.bigint() - started);
  }
  times.sort();
  const at = (share: number): number => Number(((times[Math.floor(share * times.length)] ?? 0) / 1000).toFixed(2));
  return { p50Us: at(0.5), p90Us: at(0.9), p99Us: at(0.99) };
}

const dialect: Dialect = {
  name: "openai",
  fault: ({ message }) => ({ status: 400, body: { error: message } }),
  streamFault: () => "",
};
const Body = z.looseObject({
  model: z.string(),
  messages: z.array(z.object({ role: z.string(), content: z.string() })),
});

async function serve(identify: Identify): Promise<number> {
  const route = defineRoute<null>();
  const http = await createHttp({
    routes: [
      route({
        method: "POST",
        path: "/json",
        dialect,
        access: key("inference"),
        plane: "public",
        limits: { bodyBytes: 1e6, timeoutMs: 60_000 },
        body: Body,
        reply: [],
        audit: "none",
        doc: "",
        handler: async () => json({ done: true }),
      }),
    ],
    services: null,
    gate: plainGate(identify),
    dialect,
  });
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  return "port" in address ? address.port : 0;
}

interface Job {
  readonly port: number;
  readonly requests: number;
  readonly tokens: readonly string[];
}

/** The client, in a thread of its own. */
async function drive({ port, requests, tokens }: Job): Promise<void> {
  let sent = 0;
  const line = async (): Promise<void> => {
    const socket = connect({ host: "127.0.0.1", port });
    while (sent < requests) {
      const token = tokens[(sent++ * 7919) % tokens.length];
      socket.write(
        `POST /json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
      );
      let answer = "";
      while (!answer.endsWith('"done":true}')) answer += String((await once(socket, "data"))[0]);
      if (!answer.startsWith("HTTP/1.1 200")) throw new Error(answer.slice(0, 200));
    }
    socket.destroy();
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, line));
}

/** Microseconds of this thread's CPU a request. */
async function measure(job: Job): Promise<number> {
  const worker = new Worker(new URL(import.meta.url), { workerData: job });
  await once(worker, "message");
  const before = process.threadCpuUsage();
  worker.postMessage("go");
  await once(worker, "message");
  const { user, system } = process.threadCpuUsage(before);
  await worker.terminate();
  return (user + system) / job.requests;
}

async function corridor({ set, tokens }: Filled, requests: number, rounds: number) {
  const principal = principalOf({ id: "key_stub", tenant: "default", role: "user" });
  const ports = { stubbed: await serve(() => principal), keys: await serve(createIdentify(set)) };
  const samples = { stubbed: [] as number[], keys: [] as number[] };
  for (let round = -1; round < rounds; round++)
    for (const name of round % 2 === 0 ? (["stubbed", "keys"] as const) : (["keys", "stubbed"] as const)) {
      const cost = await measure({ port: ports[name], requests, tokens });
      process.stderr.write(`round ${round} ${name}: ${cost.toFixed(1)} us\n`);
      if (round >= 0) samples[name].push(cost);
    }
  const [stubbedUs, keysUs] = [median(samples.stubbed), median(samples.keys)];
  const added = samples.keys.map((cost, i) => cost - (samples.stubbed[i] ?? 0));
  return { keys: CORRIDOR_KEYS, stubbedUs: round1(stubbedUs), keysUs: round1(keysUs), addedUs: round1(median(added)) };
}

function memory(count: number) {
  const usage = (): number => {
    globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = usage();
  const set = fillOnly(count);
  return {
    keys: count,
    bytesAKey: Math.round((usage() - before) / set.size),
    arraysAKey: Math.round(set.bytes / set.size),
  };
}

/** Without the tokens, which a server has not either. */
function fillOnly(count: number): KeySet {
  const set = new KeySet(pepper);
  set.reserve(count);
  for (let n = 0; n < count; n++)
    set.put({ id: `key_${n.toString(36).padStart(16, "0")}`, digest: randomBytes(32), profile, stored: true });
  return set;
}

async function loading(count: number) {
  const folder = mkdtempSync(join(tmpdir(), "castellan-bench-"));
  const store = await openStore({ state: openStateDirectory(join(folder, "state")) });
  try {
    await insert(store, count);
    const set = new KeySet(pepper);
    let longest = 0;
    let last = performance.now();
    const ticks = setInterval(() => {
      longest = Math.max(longest, performance.now() - last - 1);
      last = performance.now();
    }, 1);
    const started = performance.now();
    const feed = await KeyFeed.start({ store, keys: set, log: () => {} });
    const seconds = (performance.now() - started) / 1000;
    clearInterval(ticks);
    const before = performance.now();
    for (let n = 0; n < 100; n++) await feed.refresh();
    const pollUs = ((performance.now() - before) * 1000) / 100;
    await feed.close();
    return { keys: set.size, seconds: round1(seconds), longestPauseMs: round1(longest), pollUs: Math.round(pollUs) };
  } finally {
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function insert({ db }: Store, count: number): Promise<void> {
  const never = { not_before: null, expires_at: null, disabled_at: null, deleted_at: null, last_used_at: null };
  const empty = { scopes: null, reach: "{}", limits: "{}", caps: "{}" };
  await db
    .insertInto("tenants")
    .values({ name: "default", limits: "{}", created_at: 1, created_by: "bench" })
    .execute();
  for (let from = 0; from < count; from += 1000)
    await db.transaction().execute(async (work) => {
      const ids = Array.from(
        { length: Math.min(1000, count - from) },
        (_, i) => `key_${(from + i).toString(36).padStart(16, "0")}`,
      );
      const common = { created_at: 1, created_by: "bench" };
      await work
        .insertInto("keys")
        .values(
          ids.map((id) => ({
            id,
            tenant: "default",
            name: "",
            role: "user",
            ...empty,
            ...never,
            ...common,
            revision: from,
          })),
        )
        .execute();
      await work
        .insertInto("key_secrets")
        .values(
          ids.map((id) => ({
            digest: randomBytes(32).toString("hex"),
            key_id: id,
            generation: 1,
            ...common,
            ends_at: null,
          })),
        )
        .execute();
    });
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function round1(value: number): number {
  return Number(value.toFixed(1));
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { rounds: { type: "string" }, requests: { type: "string" }, load: { type: "string" } },
  });
  const rounds = Number(values.rounds ?? 9);
  const room = memory(1_000_000);
  const sets = new Map(COUNTS.map((count) => [count, fill(count)] as const));
  const found = lookUps(sets, rounds);
  const many = sets.get(CORRIDOR_KEYS);
  if (many === undefined) throw new Error("no such set");
  const alone = identifyAlone(many);
  const added = await corridor(many, Number(values.requests ?? 20_000), rounds);
  const loaded = await loading(Number(values.load ?? 1_000_000));
  const machine = { cpu: cpus()[0]?.model, cores: cpus().length, node: process.version };
  process.stdout.write(
    `${JSON.stringify({ bench: "auth", rounds, lookUp: found, identify: alone, corridor: added, memory: room, loading: loaded, machine }, null, 2)}\n`,
  );
  process.exit(0);
}

if (isMainThread) await main();
else {
  parentPort?.postMessage("ready");
  if (parentPort !== null) await once(parentPort, "message");
  await drive(workerData as Job);
  parentPort?.postMessage("done");
}
