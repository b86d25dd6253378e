/**
 * The operational routes through the real corridor: queries and bodies as vLLM's clients send them, statuses, shapes of
 * answers, and who may.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Fault } from "#core/fault.ts";
import type { Role } from "#core/principal.ts";
import { createHttp } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { FakeOperations, type FakeParts, fakeServerOperations } from "#serving/_fake-operations.ts";
import { fixture, says } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { until } from "#test/harness.ts";
import { openai } from "#wire/openai/dialect.ts";

const SHA = "0".repeat(64);

async function door(t: TestContext, parts: FakeParts = {}) {
  const operations = new FakeOperations();
  const of = (role: Role, tenant = "default") => principalOf({ id: `key_${role}_${tenant}`, tenant, role });
  const http = await createHttp({
    routes,
    services: {
      ...servicesOf(fixture({ reply: says("x") })),
      operations: fakeServerOperations({ operations, ...parts }),
    },
    gate: gateOf({ admin: of("admin"), trainer: of("trainer"), operator: of("operator"), acme: of("admin", "acme") }),
    dialect: openai,
  });
  t.after(() => http.close(0));
  const ask = async (target: string, body?: unknown, token = "admin") => {
    const [method = "POST", url = ""] = target.split(" ");
    const headers = { authorization: `Bearer ${token}`, ...(body === undefined ? {} : JSON_TYPE) };
    const payload = body === undefined ? {} : { payload: typeof body === "string" ? body : JSON.stringify(body) };
    const plane = url.startsWith("/tokenizer_info") ? "public" : "ops";
    const answer = await http.inject(plane, { method: method as "GET" | "POST", url, headers, ...payload });
    return { status: answer.statusCode, text: answer.payload };
  };
  return { operations, ask };
}

const JSON_TYPE = { "content-type": "application/json" };

/** What a call answers, as one line. */
type Case = readonly [target: string, body: unknown, status: number, answer: string | RegExp];

async function check(ask: Awaited<ReturnType<typeof door>>["ask"], cases: readonly Case[]): Promise<void> {
  for (const [target, body, status, answer] of cases) {
    const label = `${target} ${JSON.stringify(body)?.slice(0, 200)}`;
    const got = await ask(target, body);
    assert.equal(got.status, status, `${label}: ${got.text}`);
    if (typeof answer === "string") assert.equal(got.text, answer, label);
    else assert.match(got.text, answer, label);
  }
}

test("what vLLM's operators send, and what they read", async (t) => {
  const { operations, ask } = await door(t);
  await check(ask, [
    ["POST /pause", undefined, 200, '{"status":"paused"}'],
    ["GET /is_paused", undefined, 200, '{"is_paused":true}'],
    ["POST /resume", undefined, 200, '{"status":"resumed"}'],
    ["POST /pause?mode=keep&clear_cache=false", undefined, 200, '{"status":"paused"}'],
    ["POST /pause?wait_for_inflight_requests=True", undefined, 200, '{"status":"paused"}'],
    ["POST /sleep", undefined, 200, ""],
    ["POST /sleep?level=2&mode=wait", undefined, 200, ""],
    ["GET /is_sleeping", undefined, 200, '{"is_sleeping":true}'],
    ["POST /wake_up?tags=weights&tags=kv_cache", undefined, 200, ""],
    ["POST /wake_up", undefined, 200, ""],
    [
      "POST /scale_elastic_ep",
      { new_data_parallel_size: 2, drain_timeout: 5 },
      200,
      '{"message":"Scaled to 2 data parallel engines"}',
    ],
    ["POST /is_scaling_elastic_ep", undefined, 200, '{"is_scaling_elastic_ep":false}'],
    ["POST /reset_prefix_cache", undefined, 200, ""],
    ["POST /reset_prefix_cache?reset_running_requests=1", undefined, 200, ""],
    ["POST /reset_mm_cache", undefined, 200, ""],
    ["POST /reset_encoder_cache", undefined, 200, ""],
    ["POST /abort_requests", { request_ids: ["chatcmpl-1"] }, 200, ""],
  ]);
  assert.deepEqual(operations.asked, [
    "pause abort true",
    "resume",
    "pause keep false",
    "pause wait true",
    "sleep 1 abort",
    "sleep 2 wait",
    "wake weights kv_cache",
    "wake",
    "scale 2 5000 stay",
    "reset false",
    "reset true",
  ]);
});

test("weights, profiles, development, fault tolerance, information", async (t) => {
  const { operations, ask } = await door(t);
  const update = { path: "/w/a.gguf", sha256: SHA.toUpperCase(), mode: "abort" };
  await check(ask, [
    ["GET /get_world_size", undefined, 200, '{"world_size":1}'],
    ["GET /get_world_size?include_dp=false", undefined, 200, '{"world_size":1}'],
    ["POST /init_weight_transfer_engine", { init_info: {} }, 200, '{"message":"Weight transfer initialized"}'],
    ["POST /start_weight_update", undefined, 200, '{"message":"Weight update started"}'],
    ["POST /start_weight_update", { include_draft: false }, 200, '{"message":"Weight update started"}'],
    ["POST /update_weights", { update_info: update }, 200, '{"message":"Weights verified"}'],
    ["POST /finish_weight_update", undefined, 200, '{"message":"Weights updated"}'],
    ["POST /update_weights", { update_info: update }, 200, '{"message":"Weights updated"}'],
    ["POST /start_profile?seconds=5", undefined, 200, '{"message":"Profiling started","seconds":5}'],
    [
      "POST /stop_profile",
      undefined,
      200,
      /^\{"files":\["profile-[^"]+-http\.cpuprofile","profile-[^"]+"\],"left_out":\[\]\}$/,
    ],
    ["POST /collective_rpc", { method: "check_health" }, 200, '{"results":[{"engine":0,"state":"ready"}]}'],
    ["POST /collective_rpc", { method: "check_health", args: [], kwargs: {}, timeout: 1.5 }, 200, /results/],
    ["GET /fault_tolerance/status", undefined, 200, '{"0":{"status":"ready","restarts":0}}'],
    [
      "POST /fault_tolerance/apply",
      { fault_tolerance_instruction: "pause", fault_tolerance_timeout: 5, fault_tolerance_params: {} },
      200,
      "",
    ],
    ["POST /fault_tolerance/apply", { fault_tolerance_instruction: "retry", fault_tolerance_timeout: 5 }, 200, ""],
    [
      "GET /server_info",
      undefined,
      200,
      '{"vllm_config":"port=8000","vllm_env":{},"system_env":{},"engines":[{"engine":0,"state":"ready","restarts":0}],"is_paused":false,"sleep_state":"awake"}',
    ],
    ["GET /server_info?config_format=json", undefined, 200, /^\{"vllm_config":\{"port":8000\},/],
    ["GET /tokenizer_info", undefined, 200, /"chat_template":"\{% for m in messages %\}.*"bos_token":"<s>"/],
  ]);
  assert.equal(operations.asked.filter((words) => words === "reload /w/a.gguf abort").length, 2);
});

const HOSTILE = ["../../etc/passwd", "a\0b", "%00", "x".repeat(5000)];

test("what is wrong is a 400 that names the field, and nothing is done", async (t) => {
  const { operations, ask } = await door(t);
  const info = { path: "/w/a.gguf", sha256: SHA };
  await check(ask, [
    ["POST /pause?mode=stop", undefined, 400, /"param":"mode"/],
    ["POST /pause?mode=abort%00", undefined, 400, /has a NUL.*"param":"mode"/],
    ["POST /pause?mode=abort&mode=keep", undefined, 400, /stands twice.*"param":"mode"/],
    ["POST /pause?clear_cache=maybe", undefined, 400, /"param":"clear_cache"/],
    ["POST /pause?mode=keep&wait_for_inflight_requests=true", undefined, 400, /contradict/],
    ["POST /sleep?level=3", undefined, 400, /"param":"level"/],
    ["POST /wake_up?tags=everything", undefined, 400, /"param":"tags.0"/],
    [`POST /wake_up?${"tags=weights&".repeat(20)}`, undefined, 400, /"param":"tags"/],
    ["POST /reset_prefix_cache?reset_external=true", undefined, 400, /"param":"reset_external"/],
    ["POST /scale_elastic_ep", {}, 400, /"param":"new_data_parallel_size"/],
    ["POST /scale_elastic_ep", { new_data_parallel_size: 0 }, 400, /"param":"new_data_parallel_size"/],
    ["POST /scale_elastic_ep", { new_data_parallel_size: "2" }, 400, /"param":"new_data_parallel_size"/],
    ["POST /scale_elastic_ep", { new_data_parallel_size: 2, drain_timeout: 1e9 }, 400, /"param":"drain_timeout"/],
    ["POST /abort_requests", "{", 400, /./],
    ["POST /abort_requests", {}, 400, /"param":"request_ids"/],
    ["POST /abort_requests", { request_ids: [1] }, 400, /"param":"request_ids.0"/],
    ["POST /abort_requests", { request_ids: Array(1025).fill("x") }, 400, /1024 ids at most/],
    ["POST /init_weight_transfer_engine", {}, 400, /"param":"init_info"/],
    ["POST /init_weight_transfer_engine", { init_info: { backend: "nccl" } }, 400, /"param":"init_info.backend"/],
    [
      "POST /init_weight_transfer_engine",
      { init_info: { master_address: "10.0.0.1" } },
      400,
      /"param":"init_info.master_address"/,
    ],
    ["POST /start_weight_update", { include_draft: true }, 501, /"param":"include_draft"/],
    ["POST /start_weight_update", { is_checkpoint_format: true }, 400, /"param":"is_checkpoint_format"/],
    ["POST /update_weights", { update_info: { ...info, sha256: "ab" } }, 400, /"param":"update_info.sha256"/],
    ["POST /update_weights", { update_info: { path: "/w/a.gguf" } }, 400, /"param":"update_info.sha256"/],
    ["POST /update_weights", { update_info: { ...info, names: [] } }, 400, /"param":"update_info.names"/],
    ["POST /update_weights", { update_info: { ...info, mode: "later" } }, 400, /"param":"update_info.mode"/],
    ["POST /finish_weight_update", undefined, 400, /nothing to finish/],
    ["POST /start_profile?seconds=61", undefined, 400, /"param":"seconds"/],
    ["POST /stop_profile", undefined, 400, /No profile was started/],
    ["POST /collective_rpc", {}, 400, /"param":"method"/],
    [
      "POST /collective_rpc",
      { method: "save_sharded_state" },
      400,
      /one of check_health, get_stats, reset_prefix_cache/,
    ],
    ["POST /collective_rpc", { method: "check_health", args: ["x"] }, 400, /"param":"args"/],
    ["POST /collective_rpc", { method: "check_health", kwargs: { x: 1 } }, 400, /"param":"kwargs"/],
    ["POST /collective_rpc", { method: "check_health", timeout: 0 }, 400, /"param":"timeout"/],
    ["POST /fault_tolerance/apply", { fault_tolerance_instruction: "kill", fault_tolerance_timeout: 1 }, 400, /./],
    ["POST /fault_tolerance/apply", { fault_tolerance_instruction: "pause" }, 400, /"param":"fault_tolerance_timeout"/],
    [
      "POST /fault_tolerance/apply",
      { fault_tolerance_instruction: "pause", fault_tolerance_timeout: 1, fault_tolerance_params: { x: 1 } },
      400,
      /"param":"fault_tolerance_params"/,
    ],
    ["GET /server_info?config_format=yaml", undefined, 400, /"param":"config_format"/],
    ...HOSTILE.map((method): Case => ["POST /collective_rpc", { method }, 400, /./]),
    ...HOSTILE.map((mode): Case => [`POST /pause?mode=${encodeURIComponent(mode.slice(0, 500))}`, undefined, 400, /./]),
  ]);
  assert.deepEqual(operations.asked, []);
});

test("what concerns every tenant is for the operator's own; ids of other tenants stand for nothing", async (t) => {
  const { operations, ask } = await door(t);
  operations.calls.add("default\0chatcmpl-1").add("acme\0chatcmpl-1");
  const concerned = routes.filter(({ plane, access, path }) => {
    const scope = access.kind === "key" ? access.scope : "";
    return plane === "ops" && ["ops", "weights", "profile", "dev"].includes(scope) && path !== "/abort_requests";
  });
  assert.equal(concerned.length, 22);
  for (const { method, path } of concerned)
    assert.equal((await ask(`${method} ${path}`, undefined, "acme")).status, 403, path);
  assert.deepEqual(operations.asked, []);
  assert.equal((await ask("POST /abort_requests", { request_ids: ["chatcmpl-1"] }, "acme")).status, 200);
  assert.deepEqual([...operations.calls], ["default\0chatcmpl-1"]);
  assert.equal((await ask("POST /pause", undefined, "trainer")).status, 403);
  assert.equal((await ask("GET /get_world_size", undefined, "operator")).status, 403);
});

test("a failure of the engines is told in words and statuses of the contract", async (t) => {
  const { operations, ask } = await door(t, { line: { turnMs: 1 } });
  operations.waits.set("scale", new Fault("request_timeout", "not in time; their number stays"));
  assert.equal((await ask("POST /scale_elastic_ep", { new_data_parallel_size: 1 })).status, 408);
  operations.waits.set("wake", new Fault("engine_unavailable", "no engine could be woken"));
  const woken = await ask("POST /wake_up");
  assert.equal(woken.status, 503);
  assert.match(woken.text, /no engine could be woken/);
  const loading = Promise.withResolvers<void>();
  operations.waits.set("reload", loading.promise);
  const update = ask("POST /update_weights", { update_info: { path: "/w/a.gguf", sha256: SHA, mode: "keep" } });
  await until("the weights are being changed", () => operations.asked.includes("reload /w/a.gguf keep"));
  const second = await ask("POST /sleep");
  assert.equal(second.status, 503);
  assert.match(second.text, /Nothing was done \(sleep\): weights is under way/);
  loading.resolve();
  assert.equal((await update).status, 200);
});
