import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { createRegistry } from "#base/metrics.ts";
import { Fault } from "#core/fault.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import { UpstreamClient } from "#egress/upstream/client.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import {
  type Act,
  answer,
  chunk,
  close,
  type FaultServer,
  faultServer,
  LAST_CHUNK,
  nothing,
  reset,
  STREAM_HEAD,
  whole,
} from "#test/fixtures/fault-server.ts";
import { sendTo } from "#test/fixtures/pool-send.ts";
import { until } from "#test/harness.ts";
import { PrefixNamer } from "./affinity.ts";
import { HealthWatch } from "./health.ts";
import { Membership } from "./membership.ts";
import { registerUpstreamMetrics } from "./metrics.ts";
import { type PoolCall, type PoolOptions, UpstreamPool } from "./pool.ts";

const OPTIONS: PoolOptions = {
  maxInFlight: 4,
  affinityFactor: 1.5,
  affinitySlackTokens: 1000,
  affinityEntries: 100,
  slowStartMs: 0,
  consecutiveFailures: 3,
  failureShare: 1,
  failureLeast: 100,
  ejectMs: 60_000,
  ejectMostMs: 60_000,
  ejectShare: 0.5,
  timeouts: { firstByteMs: 20_000, idleMs: 20_000, totalMs: 60_000 },
  retryShare: 1,
  retriesPerSecond: 10,
  maxWaiting: 2,
  maxWaitMs: 20_000,
};
const POST: UpstreamRequest = {
  method: "POST",
  target: "/v1/completions",
  headers: ["content-type", "application/json"],
  body: [Buffer.from("{}")],
};
const CALL: PoolCall = { tokens: 10, idempotent: true };

interface Setting {
  readonly pool: UpstreamPool;
  readonly servers: readonly FaultServer[];
  readonly asked: () => number[];
}

async function setUp(t: TestContext, acts: readonly Act[], change: Partial<PoolOptions> = {}): Promise<Setting> {
  const pool = new UpstreamPool({ ...OPTIONS, ...change });
  t.after(() => pool.destroy());
  const servers: FaultServer[] = [];
  for (const [at, act] of acts.entries()) {
    const server = await faultServer(act);
    t.after(() => server.close());
    servers.push(server);
    pool.add({ label: `u${at}`, link: linkTo(server.origin) });
  }
  return { pool, servers, asked: () => servers.map(({ requests }) => requests.length) };
}

function linkTo(origin: string): UpstreamClient {
  return new UpstreamClient({ origin, connections: 16, connectMs: 5000 });
}

/** `status body`, `kind` where it failed before the head, `status body!kind` where it broke after it. */
async function outcome(pool: UpstreamPool, call: Partial<PoolCall> = {}): Promise<string> {
  try {
    const { status, source } = await sendTo(pool, POST, { ...CALL, ...call });
    let body = "";
    return await new Promise((done) =>
      source.pipe({
        write: (bytes) => {
          body += Buffer.from(bytes);
          return true;
        },
        end: () => done(`${status} ${body}`),
        fail: ({ kind }) => done(`${status} ${body}!${kind}`),
      }),
    );
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    return error.kind;
  }
}

function idle({ pool }: Setting): void {
  for (const { inFlight, outstandingTokens } of pool.states()) assert.deepEqual([inFlight, outstandingTokens], [0, 0]);
  assert.equal(pool.waiting, 0);
}

const OK = answer(whole("ok"));
const status = (line: string, headers: readonly string[] = []): Act => answer(whole("told", line, headers));

/** What the first upstream does → what the client gets from a pool whose second one works, if the call may be repeated or not. */
const TWO: Readonly<Record<string, readonly [act: Act, idempotent: string, once: string]>> = {
  "reset before the head": [reset(), "200 ok", "upstream_failed"],
  "closed before the head": [close(), "200 ok", "upstream_failed"],
  garbage: [answer("what?\r\n\r\n"), "200 ok", "upstream_failed"],
  "500 then 200": [status("500 Internal Server Error"), "200 ok", "upstream_failed"],
  "502": [status("502 Bad Gateway"), "200 ok", "upstream_failed"],
  "503": [status("503 Service Unavailable"), "200 ok", "upstream_unavailable"],
  "504": [status("504 Gateway Timeout"), "200 ok", "upstream_timeout"],
  "429": [status("429 Too Many Requests"), "200 ok", "overloaded"],
  "401": [status("401 Unauthorized"), "200 ok", "upstream_failed"],
  "a redirect": [status("307 Temporary Redirect"), "200 ok", "upstream_failed"],
  "400": [status("400 Bad Request"), "400 told", "400 told"],
  "404": [status("404 Not Found"), "404 told", "404 told"],
  "501": [status("501 Not Implemented"), "501 told", "501 told"],
  "reset in the stream": [reset(`${STREAM_HEAD}${chunk("a")}`), "200 a!upstream_failed", "200 a!upstream_failed"],
  "a body too short": [
    close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\na"),
    "200 a!upstream_failed",
    "200 a!upstream_failed",
  ],
  "chunked nonsense": [answer(`${STREAM_HEAD}xyz\r\n`), "200 !upstream_failed", "200 !upstream_failed"],
};

test("a request is spent when its only try is answered and all of it was written, and never else", async (t) => {
  const stories: readonly (readonly [acts: readonly Act[], end: string, spent: number])[] = [
    [[OK], "200 ok", 1],
    [[status("400 Bad Request")], "400 told", 1],
    // The first one may still be reading it.
    [[status("503 Service Unavailable"), OK], "200 ok", 0],
    [[reset(), OK], "200 ok", 0],
    [[status("503 Service Unavailable")], "upstream_unavailable", 0],
    [[reset(`${STREAM_HEAD}${chunk("a")}`)], "200 a!upstream_failed", 1],
  ];
  for (const [acts, end, times] of stories) {
    const { pool } = await setUp(t, acts);
    let spent = 0;
    assert.equal(await outcome(pool, { spent: () => spent++ }), end);
    await until("it is over", () => pool.states().every(({ inFlight }) => inFlight === 0));
    assert.equal(spent, times, end);
  }
});

test("a request that is answered before it was written is spent when its answer is whole", async (t) => {
  const early = createServer((socket) => {
    socket.on("error", () => {}).once("data", () => socket.pause().write(`${STREAM_HEAD}${chunk("a")}`));
    held.push(socket);
  });
  const held: Socket[] = [];
  early.listen(0, "127.0.0.1");
  await once(early, "listening");
  t.after(() => early.close());
  const { pool } = await setUp(t, []);
  pool.add({ label: "early", link: linkTo(`http://127.0.0.1:${(early.address() as AddressInfo).port}`) });
  let spent = 0;
  const request = { ...POST, body: [Buffer.alloc(16 << 20)] };
  const { source } = await sendTo(pool, request, { ...CALL, spent: () => spent++ });
  assert.equal(spent, 0);
  const over = new Promise<void>((end) => source.pipe({ write: () => true, end, fail: () => end() }));
  held[0]?.write(LAST_CHUNK);
  await over;
  assert.equal(spent, 1);
});

test("an answer in one piece that says that the upstream failed counts as its failure, not as an answer", async (t) => {
  for (const [line, failures] of [
    ["503 Service Unavailable", 2],
    ["500 Internal Server Error", 2],
    ["429 Too Many Requests", 0],
    ["400 Bad Request", 0],
  ] as const) {
    const { pool } = await setUp(t, [status(line)]);
    for (let i = 0; i < 2; i++) await outcome(pool);
    await until("it is over", () => pool.states()[0]?.inFlight === 0);
    assert.equal(pool.states()[0]?.consecutiveFailures, failures, line);
  }
});

for (const [name, [act, idempotent, once]] of Object.entries(TWO))
  test(`two upstreams, one at fault: ${name}`, async (t) => {
    for (const [may, expected] of [
      [true, idempotent],
      [false, once],
    ] as const) {
      const setting = await setUp(t, [act, OK]);
      assert.equal(await outcome(setting.pool, { idempotent: may }), expected);
      assert.deepEqual(setting.asked(), [1, expected === "200 ok" ? 1 : 0]);
      idle(setting);
      assert.equal(await outcome(setting.pool), "200 ok", "the other is next");
      idle(setting);
    }
  });

test("one that is not there costs nothing, even where a call may not be repeated", async (t) => {
  const setting = await setUp(t, [OK]);
  const gone = await faultServer(nothing);
  await gone.close();
  const pool = new UpstreamPool(OPTIONS);
  t.after(() => pool.destroy());
  pool.add({ label: "gone", link: linkTo(gone.origin) });
  pool.add({ label: "there", link: linkTo(setting.servers[0]?.origin ?? "") });
  for (let i = 0; i < 6; i++) assert.equal(await outcome(pool, { idempotent: false }), "200 ok");
  assert.deepEqual(
    pool.states().map(({ label, state }) => [label, state]),
    [
      ["gone", "ejected"],
      ["there", "ready"],
    ],
  );
});

test("a request that ends engines ends two, not all", async (t) => {
  const setting = await setUp(t, [reset(), reset(), reset(), reset()]);
  assert.equal(await outcome(setting.pool), "upstream_failed");
  assert.equal(
    setting.asked().reduce((sum, each) => sum + each),
    2,
  );
});

test("those that say that they have not begun are asked up to three times in all, within the budget", async (t) => {
  const down = status("503 Service Unavailable", ["retry-after: 7"]);
  const setting = await setUp(t, [down, down, down, down]);
  await assert.rejects(
    sendTo(setting.pool, POST, CALL),
    (error) => error instanceof UpstreamFault && error.kind === "upstream_unavailable" && error.retryAfterMs === 7000,
  );
  assert.equal(
    setting.asked().reduce((sum, each) => sum + each),
    3,
  );
  const poor = await setUp(t, [down, down, down, down], { retryShare: 0, retriesPerSecond: 0 });
  assert.equal(await outcome(poor.pool), "upstream_unavailable");
  assert.equal(
    poor.asked().reduce((sum, each) => sum + each),
    1,
  );
});

test("one upstream alone: asked again when the connection was stale, not when it says no", async (t) => {
  const setting = await setUp(t, [
    ({ socket, number }) => void (number === 0 ? socket.destroy() : socket.write(whole("ok"))),
  ]);
  assert.equal(await outcome(setting.pool), "200 ok");
  assert.deepEqual(setting.asked(), [2]);
  const down = await setUp(t, [status("503 Service Unavailable")]);
  assert.equal(await outcome(down.pool), "upstream_unavailable");
  assert.deepEqual(down.asked(), [1]);
  for (let i = 0; i < 10; i++) await outcome(down.pool);
  assert.equal(down.pool.states()[0]?.state, "ready", "a pool of one is never emptied");
});

test("all full: so many wait, first come, first served; who leaves is not served", async (t) => {
  const open: Parameters<Act>[0][] = [];
  const setting = await setUp(t, [(turn) => void open.push(turn)], { maxInFlight: 1 });
  const [stop, never] = [new AbortController(), new AbortController()];
  const done: string[] = [];
  const call = async (name: string, signal?: AbortSignal): Promise<void> =>
    void done.push(`${name}: ${await outcome(setting.pool, signal === undefined ? {} : { signal })}`);
  const first = call("first");
  const second = call("second", stop.signal);
  const third = call("third");
  assert.equal(await outcome(setting.pool), "overloaded", "two wait at most");
  stop.abort();
  await second;
  const fourth = call("fourth", never.signal);
  while (open.length === 0) await new Promise((over) => setTimeout(over, 5));
  open[0]?.socket.write(whole("1"));
  await first;
  while (open.length < 2) await new Promise((over) => setTimeout(over, 5));
  open[1]?.socket.write(whole("3"));
  await third;
  while (open.length < 3) await new Promise((over) => setTimeout(over, 5));
  never.abort(new Fault("request_timeout", "late"));
  await fourth;
  assert.deepEqual(done, ["second: cancelled", "first: 200 1", "third: 200 3", "fourth: request_timeout"]);
  idle(setting);

  const slow = await setUp(t, [nothing], { maxInFlight: 1, maxWaitMs: 50 });
  const stuck = sendTo(slow.pool, POST, { ...CALL, signal: AbortSignal.timeout(2000) }).catch(() => {});
  assert.equal(await outcome(slow.pool), "overloaded", "so long at most");
  await slow.pool.destroy();
  await stuck;
  idle(slow);
});

test("whoever leaves frees the upstream at once, streaming or not; nothing leaks", async (t) => {
  const setting = await setUp(t, [nothing]);
  const stop = new AbortController();
  const waiting = outcome(setting.pool, { signal: stop.signal });
  while (setting.asked()[0] === 0) await new Promise((over) => setTimeout(over, 5));
  assert.equal(setting.pool.states()[0]?.inFlight, 1);
  stop.abort();
  assert.equal(await waiting, "cancelled");
  idle(setting);
  setting.servers[0]?.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  const reply = await sendTo(setting.pool, POST, CALL);
  assert.equal(reply.upstream, "u0");
  reply.settled(77);
  assert.equal(setting.pool.states()[0]?.outstandingTokens, 77);
  reply.source.cancel();
  reply.settled(5);
  idle(setting);
  assert.equal(setting.pool.states()[0]?.consecutiveFailures, 0, "nobody's fault");
});

test("a storm of faults: one outcome a call, no call twice, counts back at zero", async (t) => {
  const acts = Object.values(TWO).map(([act]) => act);
  const chaos: Act = (turn) => (acts[(turn.number * 7) % acts.length] ?? OK)(turn);
  const setting = await setUp(t, [chaos, chaos, OK], { ejectShare: 0, maxInFlight: 8, maxWaiting: 1000 });
  const results = await Promise.all(Array.from({ length: 300 }, () => outcome(setting.pool)));
  assert.ok(
    results.every((each) => /^(?:\d{3} \w*(?:!upstream_failed)?|upstream_\w+|overloaded)$/.test(each)),
    results.join(),
  );
  assert.ok(results.filter((each) => each === "200 ok").length > 50);
  idle(setting);
});

test("metrics: by the operator's names and closed sets", async (t) => {
  const registry = createRegistry();
  const pools = new Map<string, UpstreamPool>();
  const observer = registerUpstreamMetrics(registry, () => pools)("m");
  const setting = await setUp(t, [reset(), answer(`${STREAM_HEAD}${chunk("a")}${LAST_CHUNK}`)], { observer });
  pools.set("m", setting.pool);
  assert.equal(await outcome(setting.pool), "200 a");
  const text = await registry.metrics();
  for (const line of [
    'castellan:upstream_requests_total{model_name="m",upstream="u0",outcome="failed"} 1',
    'castellan:upstream_requests_total{model_name="m",upstream="u1",outcome="ok"} 1',
    'castellan:upstream_retries_total{model_name="m",upstream="u0"} 1',
    'castellan:upstream_first_byte_seconds_count{model_name="m",upstream="u1"} 1',
    'castellan:upstream_in_flight{model_name="m",upstream="u1"} 0',
    'castellan:upstream_outstanding_tokens{model_name="m",upstream="u0"} 0',
    'castellan:upstream_state{model_name="m",upstream="u0",state="ready"} 1',
    'castellan:upstream_waiting{model_name="m"} 0',
  ])
    assert.ok(text.includes(line), `${line}\n${text}`);
});

test("health: looks that fail put an upstream out, one that works brings it back; models, adapters and sleep are learnt", async (t) => {
  let well = true;
  const models = { data: [{ id: "base", parent: null }, { id: "sql", parent: "base" }, { id: 7 }, null] };
  const setting = await setUp(t, [
    ({ socket, head }) => {
      if (!well) socket.destroy();
      else if (head.startsWith("GET /v1/models")) socket.write(whole(JSON.stringify(models)));
      else if (head.startsWith("GET /is_sleeping")) socket.write(whole('{"is_sleeping":true}'));
      else socket.write(whole(""));
    },
    OK,
  ]);
  const watch = new HealthWatch({
    pool: setting.pool,
    intervalMs: 60_000,
    timeoutMs: 5000,
    failures: 2,
    log: silentLog,
  });
  t.after(() => watch.stop());
  await watch.start();
  const states = (): unknown => setting.pool.states().map(({ state, adapters }) => [state, adapters]);
  assert.deepEqual(watch.models(), ["base"]);
  assert.deepEqual(states(), [
    ["asleep", ["sql"]],
    ["ready", []],
  ]);
  setting.pool.setAsleep(0, false);
  well = false;
  await watch.look();
  assert.deepEqual(setting.pool.states()[0]?.state, "ready", "once is no time");
  await watch.look();
  assert.deepEqual(setting.pool.states()[0]?.state, "unhealthy");
  for (let i = 0; i < 3; i++) assert.equal(await outcome(setting.pool), "200 ok");
  well = true;
  await watch.look();
  assert.notEqual(setting.pool.states()[0]?.state, "unhealthy");
});

test("health: a busy upstream that is slow to say so stays; one that hangs with its requests goes", async (t) => {
  let hangs = false;
  const setting = await setUp(t, [
    ({ socket, head }) => {
      if (head.startsWith("POST") && !hangs) socket.write(whole("ok"));
    },
    OK,
  ]);
  const watch = new HealthWatch({ pool: setting.pool, intervalMs: 60_000, timeoutMs: 50, failures: 2, log: silentLog });
  const state = (): string | undefined => setting.pool.states()[0]?.state;
  for (let i = 0; i < 4; i++) {
    for (let each = 0; each < 4; each++) assert.equal(await outcome(setting.pool), "200 ok");
    await watch.look();
    assert.equal(state(), "ready");
  }
  hangs = true;
  const stop = new AbortController();
  const stuck = Array.from({ length: 4 }, () => outcome(setting.pool, { signal: stop.signal }));
  await watch.look();
  for (let i = 0; i < 2; i++) await watch.look();
  assert.equal(state(), "unhealthy");
  stop.abort();
  await Promise.all(stuck);
  idle(setting);
});

test("membership: joined and drained as the name says; a running stream is not broken; labels are slots", async (t) => {
  const servers = await Promise.all([1, 2, 3].map(() => faultServer(OK)));
  t.after(() => Promise.all(servers.map((server) => server.close())));
  const [a, b, c] = servers as [FaultServer, FaultServer, FaultServer];
  const pool = new UpstreamPool(OPTIONS);
  t.after(() => pool.destroy());
  let found: (() => readonly FaultServer[]) | undefined = () => [a, b];
  const membership = new Membership({
    pool,
    label: "gpu",
    weight: 1,
    log: silentLog,
    find: async () => {
      if (found === undefined) throw new Error("no answer");
      return { ttlMs: 5, servers: found().map(({ origin }) => ({ key: origin, origin, weight: 1 })) };
    },
    open: ({ origin }) => linkTo(origin),
  });
  assert.equal(await membership.refresh(), 1000, "not more often than once a second");
  const labels = (): string[] => pool.states().map(({ label, state }) => `${label} ${state}`);
  assert.deepEqual(labels(), ["gpu-0 ready", "gpu-1 ready"]);
  for (const server of servers) server.act(answer(`${STREAM_HEAD}${chunk("a")}`));
  const streams = [await sendTo(pool, POST, CALL), await sendTo(pool, POST, CALL)];
  assert.deepEqual(new Set(streams.map(({ upstream }) => upstream)), new Set(["gpu-0", "gpu-1"]));
  found = () => [b, c];
  await membership.refresh();
  assert.deepEqual(labels().sort(), ["gpu-0 leaving", "gpu-1 ready", "gpu-2 ready"]);
  found = undefined;
  await membership.refresh();
  assert.equal(membership.size, 2, "a name server's mishap changes nothing");
  const read = streams.map(
    ({ source }) => new Promise((end, fail) => source.pipe({ write: () => true, end: () => end(""), fail })),
  );
  for (const { requests } of [a, b]) requests[0]?.socket.write(chunk("b") + LAST_CHUNK);
  await Promise.all(read);
  // When all of it is read, the connections of the one that left are closed.
  while (labels().length > 2 || a.sockets.size > 0) await new Promise((over) => setTimeout(over, 5));
  await new Promise(setImmediate);
  found = () => [a, b, c];
  await membership.refresh();
  assert.deepEqual(labels().sort(), ["gpu-0 ready", "gpu-1 ready", "gpu-2 ready"], "slots are used again");
});

test("prompts are told apart where there is a choice, and not where there is none", async (t) => {
  let hashed = 0;
  const block = (): string => `b${++hashed}`;
  const namer = new PrefixNamer({ root: "", block });
  const call = { ...CALL, prefix: { salt: "t", pieces: [new Uint8Array(4096)] } };
  for (const [servers, blocks] of [
    [1, 0],
    [2, 3],
  ] as const) {
    hashed = 0;
    const { pool } = await setUp(t, Array(servers).fill(OK), { namer });
    const { source } = await sendTo(pool, POST, call);
    source.cancel();
    assert.equal(hashed, blocks);
  }
});
