/**
 * Operating the real server over its operations listener while clients stream: pause, abort, sleep and wake, scale,
 * other weights, profiles; what is in the audit log of it; and where none of it can be reached.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { writeModel } from "../fixtures/gguf.ts";
import { exchanged, putTogether, takeApart } from "../fixtures/gguf-edit.ts";
import { randomOf } from "../fixtures/grammar-walk.ts";
import { DEMO_MODEL, makeKey, startServer, type TestServer, until } from "../harness.ts";

const folder = mkdtempSync(join(tmpdir(), "castellan-operations-"));
const roots = join(folder, "weights");
const profiles = join(folder, "profiles");
mkdirSync(roots, { mode: 0o700 });
const first = weights("first.gguf", readFileSync(DEMO_MODEL));
const second = weights(
  "second.gguf",
  putTogether(exchanged(takeApart(DEMO_MODEL), "blk.0.ffn_up.weight", "blk.1.ffn_up.weight")),
);

function weights(name: string, bytes: Buffer): { readonly path: string; readonly sha256: string } {
  writeFileSync(join(roots, name), bytes, { mode: 0o600 });
  return { path: join(roots, name), sha256: createHash("sha256").update(bytes).digest("hex") };
}

let server: TestServer;
before(async () => {
  const args = ["--max-num-seqs", "4", "--enable-sleep-mode", "--weight-roots", roots, "--profile-dir", profiles];
  const dev = ["--enable-fault-tolerance", "--enable-tokenizer-info-endpoint", "--server-dev-mode"];
  server = await startServer({ args: [...args, ...dev] });
});
after(() => server.stop());

const ops = (target: string, body?: unknown, of = server): Promise<Response> => {
  const [method = "POST", path = ""] = target.split(" ");
  const content = body === undefined ? {} : { body: JSON.stringify(body) };
  return of.fetch(of.opsUrl + path, { method, key: of.adminKey, ...content });
};
const done = async (target: string, body?: unknown, of = server): Promise<string> => {
  const response = await ops(target, body, of);
  const text = await response.text();
  assert.equal(response.status, 200, `${target}: ${text}`);
  return text;
};

const post = (body: object, of = server): Promise<Response> =>
  of.fetch("/v1/completions", {
    method: "POST",
    body: JSON.stringify({ max_tokens: 600, ignore_eos: true, temperature: 0, ...body }),
  });
/** A stream that has begun, and its text once it has ended. */
async function stream(
  body: object,
  of = server,
): Promise<{ readonly all: Promise<string>; readonly text: () => string }> {
  const response = await post({ prompt: [5, 6, 7], stream: true, ...body }, of);
  assert.equal(response.status, 200);
  let text = "";
  const read = async (): Promise<string> => {
    for await (const chunk of response.body ?? []) text += Buffer.from(chunk as Uint8Array).toString();
    return text;
  };
  const all = read();
  await until("the stream has begun", () => text.includes("data: "));
  return { all, text: () => text };
}
const whole = (text: string): boolean => /"finish_reason":"length".*\n\ndata: \[DONE\]\n\n$/s.test(text);
async function answer(prompt: readonly number[], of = server): Promise<string> {
  const response = await post({ prompt, max_tokens: 24 }, of);
  assert.equal(response.status, 200);
  return ((await response.json()) as { choices: [{ text: string }] }).choices[0].text;
}
const health = async (of = server): Promise<number> => (await of.fetch("/health", { key: null })).status;
const status = (): Promise<string> => done("GET /fault_tolerance/status");
const gauge = async (name: string, of = server): Promise<number> => {
  const text = await (await of.fetch("/metrics", { key: of.adminKey })).text();
  return [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, "gm"))].reduce(
    (sum, [, value]) => sum + Number(value),
    0,
  );
};

function engines(of = server): number[] {
  const isEngine = (pid: number): boolean => readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("castellan-engine");
  return of.descendants().filter(isEngine);
}

/** The first engine's. */
function engine(of = server): number {
  const [pid] = engines(of);
  assert.ok(pid !== undefined, "there is an engine process");
  return pid;
}

test("paused, what runs freezes and what comes waits; resumed, all of it ends whole; /health is up all the while", async () => {
  const running = await stream({ max_tokens: 1500 });
  await done("POST /pause?mode=keep&clear_cache=false");
  const steps = await gauge("castellan:engine_steps_total");
  const waiting = post({ prompt: [8, 9], max_tokens: 4 });
  await until("the new one is held", async () => (await gauge("vllm:num_requests_waiting")) >= 1);
  assert.deepEqual(
    [await done("GET /is_paused"), await health(), await gauge("castellan:engine_steps_total")],
    ['{"is_paused":true}', 200, steps],
  );
  assert.ok(!whole(running.text()));
  await done("POST /resume");
  assert.equal((await waiting).status, 200);
  assert.ok(whole(await running.all));
});

test("a pause that waits is called off by a second operator; one that aborts ends streams in order", async () => {
  const running = await stream({ max_tokens: 1900 });
  const pausing = ops("POST /pause?mode=wait");
  await until("it is pausing", async () => (await done("GET /is_paused")) === '{"is_paused":true}');
  await done("POST /resume");
  assert.equal((await pausing).status, 200);
  assert.equal(await done("GET /is_paused"), '{"is_paused":false}');
  await done("POST /pause");
  assert.match(await running.all, /"finish_reason":"abort".*\n\ndata: \[DONE\]\n\n$/s);
  await done("POST /resume");
});

test("an answer is ended by its id, by an operator of its tenant and by none of another", async () => {
  const stranger = await makeKey(server.stateDir, "operator", { tenant: "acme" });
  const abort = (key: string) =>
    server.fetch(`${server.opsUrl}/abort_requests`, { method: "POST", key, body: '{"request_ids":["cmpl-mine"]}' });
  for (const [key, ending] of [
    [stranger, "length"],
    [server.adminKey, "abort"],
  ] as const) {
    const running = await stream({ max_tokens: 1900, request_id: "mine" });
    await done("POST /pause?mode=keep");
    await until("the key counts", async () => (await abort(key)).status === 200);
    await done("POST /resume");
    assert.match(await running.all, new RegExp(`"finish_reason":"${ending}".*\\n\\ndata: \\[DONE\\]\\n\\n$`, "s"));
  }
  for (const path of ["/pause", "/sleep", "/start_profile"])
    assert.equal((await server.fetch(server.opsUrl + path, { method: "POST", key: stranger })).status, 403);
});

test("more engines and fewer, under load: every answer ends whole", async () => {
  let over = false;
  const ended: boolean[] = [];
  const client = async (own: number): Promise<void> => {
    for (let at = 0; !over || at < 2; at++)
      ended.push(whole(await (await stream({ prompt: [own, at % 50, 7], max_tokens: 200 })).all));
  };
  const load = Promise.all(Array.from({ length: 6 }, (_, own) => client(10 + own)));
  assert.match(await done("POST /scale_elastic_ep", { new_data_parallel_size: 2 }), /Scaled to 2/);
  assert.equal(engines().length, 2);
  assert.equal(await done("GET /get_world_size"), '{"world_size":2}');
  await until("both work", async () => (await gauge("vllm:num_requests_running")) > 4);
  const [scaling, second] = await Promise.all([
    ops("POST /scale_elastic_ep", { new_data_parallel_size: 1, drain_timeout: 120 }),
    ops("POST /scale_elastic_ep", { new_data_parallel_size: 1 }),
  ]);
  assert.deepEqual([scaling.status, second.status, engines().length], [200, 200, 1]);
  over = true;
  await load;
  assert.ok(ended.length >= 12 && ended.every(Boolean), `${ended.length} answers`);
});

test("other weights: only the file that was named, recorded, and back again", async () => {
  const old = await answer([5, 6, 7]);
  const refuse = async (info: object, text: RegExp): Promise<void> => {
    const response = await ops("POST /update_weights", { update_info: info });
    const said = await response.text();
    assert.equal(response.status, 400, said);
    assert.match(said, text);
    assert.doesNotMatch(said, /castellan-operations/, "no path");
    assert.equal(await answer([5, 6, 7]), old);
  };
  await refuse({ ...second, sha256: first.sha256 }, /SHA-256 is not the one/);
  await refuse({ path: DEMO_MODEL, sha256: first.sha256 }, /not a file in a folder that weights may be loaded from/);
  const shape = join(roots, "shape.gguf");
  writeModel(shape);
  chmodSync(shape, 0o600);
  const digest = createHash("sha256").update(readFileSync(shape)).digest("hex");
  await refuse({ path: shape, sha256: digest }, /The weights are refused/);

  const running = await stream({ max_tokens: 1500 });
  await done("POST /init_weight_transfer_engine", { init_info: { backend: "file" } });
  await done("POST /start_weight_update");
  assert.match(await done("POST /update_weights", { update_info: second }), /verified/);
  assert.equal(await answer([5, 6, 7]), old, "not before the finish");
  assert.match(await done("POST /finish_weight_update"), /updated/);
  assert.ok(whole(running.text()), "it ended with the old ones before");
  await running.all;
  const fresh = await answer([5, 6, 7]);
  assert.notEqual(fresh, old);
  process.kill(engine(), "SIGKILL");
  await until("another engine is there", async () => /^\{"0":\{"status":"ready","restarts":1\}/.test(await status()));
  assert.equal(await answer([5, 6, 7]), fresh, "an engine that is started again has them, too");
  const frozen = await stream({ max_tokens: 1500 });
  await done("POST /update_weights", { update_info: { ...first, mode: "keep" } });
  assert.equal(await answer([5, 6, 7]), old);
  assert.ok(whole(await frozen.all));
});

test("a profile is two files that open, in the operator's folder", async () => {
  await done("POST /start_profile?seconds=30");
  assert.equal((await ops("POST /start_profile")).status, 400);
  await answer([5, 6, 7]);
  const { files, left_out: leftOut } = JSON.parse(await done("POST /stop_profile")) as {
    files: [string, string];
    left_out: string[];
  };
  assert.deepEqual([leftOut, readdirSync(profiles).sort()], [[], [...files].sort()]);
  assert.equal(statSync(profiles).mode & 0o777, 0o700);
  const read = (name: string) => JSON.parse(readFileSync(join(profiles, name), "utf8")) as Record<string, unknown[]>;
  for (const name of files) assert.equal(statSync(join(profiles, name)).mode & 0o777, 0o600);
  const [cpu, steps] = [read(files[0]), read(files[1])];
  assert.ok((cpu["nodes"]?.length ?? 0) > 10 && (cpu["samples"]?.length ?? 0) > 0);
  const events = steps["traceEvents"] as { name: string; ph: string; dur?: number }[];
  for (const name of ["schedule", "forward", "settle"])
    assert.ok(events.filter((event) => event.name === name && event.ph === "X").length >= 24, name);
});

test("what the server says of itself holds no key and no path", async () => {
  const text = await done("GET /server_info?config_format=json");
  const { vllm_config: config, vllm_env: environment } = JSON.parse(text) as Record<string, Record<string, unknown>>;
  assert.deepEqual([config?.["maxNumSeqs"], config?.["apiKey"], environment], [4, "(1 given)", {}]);
  for (const secret of [
    server.adminKey,
    "test-key-for-the-suite",
    server.stateDir,
    folder,
    process.env["HOME"] ?? "/root",
  ])
    assert.ok(!text.includes(secret) && !text.includes(tmpdir()), secret);
  const told = await (await server.fetch("/tokenizer_info")).text();
  assert.match(told, /"chat_template":".*im_start/);
  assert.ok(!told.includes("/castellan"));
  assert.match(await done("POST /collective_rpc", { method: "get_stats" }), /"results":\[\{"engine":0/);
  assert.equal((await ops("POST /collective_rpc", { method: "load_model" })).status, 400);
  assert.match(await status(), /^\{"0":\{"status":"ready","restarts":\d+\}/);
  assert.match(server.stdout(), /warning --server-dev-mode is not at its safe default/);
});

test("an engine that died under a pause is back at once at a retry, and the work goes on", async () => {
  await done("POST /fault_tolerance/apply", { fault_tolerance_instruction: "pause", fault_tolerance_timeout: 60 });
  const waiting = answer([5, 6, 7]);
  const before = await status();
  process.kill(engine(), "SIGKILL");
  await until("that is seen", async () => (await status()) !== before);
  await done("POST /fault_tolerance/apply", { fault_tolerance_instruction: "retry", fault_tolerance_timeout: 60 });
  assert.notEqual(await waiting, "");
});

test("operators at random, all at once, under load: every stream ends, and it serves as before", async () => {
  const before = await answer([5, 6, 7]);
  const random = randomOf(7);
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const update = (file: object): readonly [string, object] => [
    "POST /update_weights",
    { update_info: { ...file, mode: pick(["keep", "abort", "wait"]) } },
  ];
  const calls = (): readonly (readonly [string, object?])[] => [
    [`POST /pause?mode=${pick(["abort", "wait", "keep"])}&clear_cache=${pick([true, false])}`],
    ["POST /resume"],
    [`POST /sleep?level=${pick([0, 1, 2])}&mode=${pick(["abort", "wait", "keep"])}`],
    ["POST /wake_up"],
    ["POST /scale_elastic_ep", { new_data_parallel_size: pick([1, 2]), drain_timeout: 1 }],
    ["POST /reset_prefix_cache?reset_running_requests=true"],
    update(pick([first, second])),
    ["POST /abort_requests", { request_ids: ["cmpl-3", "cmpl-7"] }],
  ];
  const streams: Promise<string>[] = [];
  const statuses = new Set<number>();
  // A pause or a sleep that nobody calls off holds all others: somebody does, again and again.
  let over = false;
  const waking = async (): Promise<void> => {
    while (!over) for (const target of ["POST /wake_up", "POST /resume"]) await (await ops(target)).text();
  };
  const round = async (own: number): Promise<void> => {
    const sent = Array.from({ length: 4 }, (_, at) =>
      post({ prompt: [own, at, 9], max_tokens: 150, stream: true, request_id: String(own * 4 + at) }),
    );
    streams.push(...sent.map(async (response) => (await response).text()));
    const asked = Array.from({ length: 5 }, () => pick(calls()));
    for (const response of await Promise.all(asked.map(([target, body]) => ops(target, body)))) {
      statuses.add(response.status);
      await response.text();
    }
  };
  const rounds = async (): Promise<void> => {
    for (let own = 0; own < 8; own++) await round(own);
  };
  await Promise.all([
    rounds().finally(() => {
      over = true;
    }),
    waking(),
  ]);
  await done("POST /wake_up");
  await done("POST /resume");
  for (const text of await Promise.all(streams))
    assert.match(text, /"finish_reason":"(?:length|abort)".*\n\ndata: \[DONE\]\n\n$|"error":\{.*"code":503/s);
  assert.ok(
    [...statuses].every((status) => [200, 400, 408, 503].includes(status)),
    [...statuses].join(),
  );
  await done("POST /scale_elastic_ep", { new_data_parallel_size: 1 });
  await done("POST /update_weights", { update_info: first });
  assert.deepEqual([await answer([5, 6, 7]), await health()], [before, 200]);
  await until("nothing is left", async () => (await gauge("vllm:num_requests_(?:running|waiting)")) === 0);
});

test("every call is in the audit log, and none is on the public listener or open to a user", async () => {
  const log = await (await ops("GET /admin/audit?limit=1000")).text();
  for (const path of ["/pause", "/resume", "/scale_elastic_ep", "/update_weights", "/start_profile", "/abort_requests"])
    assert.ok(log.includes(`"${path}"`), path);
  assert.ok(log.includes("weights.change") && log.includes(second.sha256));
  for (const path of ["/pause", "/sleep", "/update_weights", "/collective_rpc", "/start_profile", "/server_info"]) {
    const method = path === "/server_info" ? "GET" : "POST";
    assert.equal((await server.fetch(path, { method, key: server.adminKey })).status, 404, path);
    assert.equal((await server.fetch(server.opsUrl + path, { method })).status, 403, path);
    assert.equal((await server.fetch(server.opsUrl + path, { method, key: null })).status, 401, path);
  }
});

const rss = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

test("asleep, the weights are out of memory, calls wait, and waking brings both back", async () => {
  const model = join(folder, "larger.gguf");
  const shape = { width: 512, layers: 6, heads: 8, kvHeads: 8, hidden: 1536, vocabulary: 8192, words: true };
  writeModel(model, { ...shape, weights: "f16" });
  const size = statSync(model).size / 2 ** 20;
  assert.ok(size > 50, "its weights are most of what its engine holds");
  const large = await startServer({
    model,
    args: ["--enable-sleep-mode", "--max-model-len", "256", "--max-num-seqs", "2"],
  });
  try {
    const before = await answer([5, 6, 7], large);
    const pid = engine(large);
    for (const level of [1, 2]) {
      const awake = rss(pid);
      await done(`POST /sleep?level=${level}`, undefined, large);
      await until("the memory is back", () => awake - rss(pid) > size * 0.8);
      assert.equal(await done("GET /is_sleeping", undefined, large), '{"is_sleeping":true}');
      assert.equal((await ops("POST /resume", undefined, large)).status, 400);
      const waiting = answer([5, 6, 7], large);
      await until("the call is held", async () => (await gauge("vllm:num_requests_waiting", large)) === 1);
      assert.equal(await health(large), 200);
      await done("POST /wake_up?tags=weights", undefined, large);
      assert.equal(await done("GET /is_sleeping", undefined, large), '{"is_sleeping":true}', "the KV cache sleeps");
      await done("POST /wake_up?tags=kv_cache", undefined, large);
      assert.deepEqual([await waiting, engines(large)], [before, [pid]], "the same process, the same answer");
    }
    await done("POST /sleep", undefined, large);
    renameSync(model, `${model}.away`);
    const woken = await ops("POST /wake_up", undefined, large);
    assert.equal(woken.status, 503);
    assert.match(await woken.text(), /no engine could be woken/);
    await until("/health says so", async () => (await health(large)) === 503);
    renameSync(`${model}.away`, model);
    await until("it is back by itself", async () => (await health(large)) === 200);
    assert.equal(await answer([5, 6, 7], large), before);
  } finally {
    await large.stop();
  }
});

test("without their settings there is nothing to sleep, to profile, to load or to call", async () => {
  copyFileSync(DEMO_MODEL, join(folder, "plain.gguf"));
  const plain = await startServer({ model: join(folder, "plain.gguf"), env: { VLLM_SERVER_DEV_MODE: "0" } });
  try {
    for (const path of ["/sleep", "/wake_up", "/start_profile", "/update_weights", "/collective_rpc"])
      assert.equal((await ops(`POST ${path}`, undefined, plain)).status, 404, path);
    for (const path of ["/is_sleeping", "/get_world_size", "/fault_tolerance/status"])
      assert.equal((await ops(`GET ${path}`, undefined, plain)).status, 404, path);
    assert.equal((await plain.fetch("/tokenizer_info")).status, 404);
    await done("POST /pause", undefined, plain);
    await done("POST /resume", undefined, plain);
  } finally {
    await plain.stop();
  }
});
