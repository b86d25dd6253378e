import assert from "node:assert/strict";
import { test } from "node:test";
import { StartupError } from "#app/startup-error.ts";
import { Secret } from "#base/secret.ts";
import { resolveSettings } from "#config/resolve.ts";
import { planVllm } from "./plan.ts";

const ENV = {
  PATH: "/usr/bin",
  HOME: "/home/op",
  CUDA_VISIBLE_DEVICES: "0,1",
  VLLM_SERVER_DEV_MODE: "1",
  VLLM_ALLOW_INSECURE_SERIALIZATION: "1",
  AWS_SECRET_ACCESS_KEY: "not for engines",
  LD_PRELOAD: "/tmp/evil.so",
};

function plan(words: readonly string[], env: Record<string, string> = ENV) {
  const { settings, passed } = resolveSettings(["--engine", "vllm", ...words], env);
  const folders = { folder: "/state/vllm", socketFolder: "/state/vllm" };
  return planVllm({ settings, passed, model: "meta/m", env, ...folders, key: new Secret("the-key") });
}

const refused = (pattern: RegExp) => (error: unknown) =>
  error instanceof StartupError && pattern.test((error as Error).message);

test("vLLM's own flags are handed on as they are, ours are not", () => {
  const { words } = plan([
    "meta/m",
    "--tensor-parallel-size",
    "8",
    "--port",
    "9000",
    "--max-model-len=8192",
    "--dtype",
    "bfloat16",
  ]);
  assert.deepEqual(words, [
    ...["serve", "meta/m", "--tensor-parallel-size", "8", "--max-model-len", "8192", "--dtype", "bfloat16"],
    ...["--uds", "/state/vllm/vllm.sock", "--disable-fastapi-docs", "--disable-uvicorn-access-log"],
    ...["--allowed-media-domains", "media.invalid"],
  ]);
});

test("the key is in the environment, never among the words; nothing else of the environment comes along", () => {
  const { words, environment } = plan([]);
  assert.ok(!words.some((word) => word.includes("the-key")));
  assert.equal(environment["VLLM_API_KEY"], "the-key");
  assert.equal(environment["CUDA_VISIBLE_DEVICES"], "0,1");
  assert.equal(environment["AWS_SECRET_ACCESS_KEY"], undefined);
  assert.equal(environment["LD_PRELOAD"], undefined);
});

test("development mode, telemetry, redirects and unsafe serialisation are off, whatever the environment says", () => {
  const { environment } = plan([], { ...ENV, VLLM_NO_USAGE_STATS: "0", VLLM_MEDIA_URL_ALLOW_REDIRECTS: "1" });
  for (const [name, value] of [
    ["VLLM_SERVER_DEV_MODE", "0"],
    ["VLLM_NO_USAGE_STATS", "1"],
    ["VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0"],
    ["VLLM_ALLOW_INSECURE_SERIALIZATION", "0"],
    ["VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0"],
    ["VLLM_PLUGINS", ""],
  ] as const)
    assert.equal(environment[name], value, name);
});

test("the operator's variable goes along, and opens none of the walls", () => {
  const words = ["--vllm-environment", "NCCL_DEBUG_FILE", "--vllm-environment", "VLLM_SERVER_DEV_MODE"];
  const { environment } = plan(words, { ...ENV, NCCL_DEBUG_FILE: "x" });
  assert.equal(environment["NCCL_DEBUG_FILE"], "x");
  assert.equal(environment["VLLM_SERVER_DEV_MODE"], "0");
});

test("caches are its own, the hub's files the operator's", () => {
  const { environment } = plan([]);
  assert.equal(environment["VLLM_CACHE_ROOT"], "/state/vllm/cache/vllm");
  assert.equal(environment["HOME"], "/state/vllm");
  assert.equal(environment["HF_HOME"], "/home/op/.cache/huggingface");
});

test("what would open a hole is refused by name, from the command line and from the file", () => {
  for (const flag of ["trust-remote-code", "enable-prompt-embeds", "trust-request-chat-template", "headless", "grpc"])
    assert.throws(() => plan([`--${flag}`]), new RegExp(`--${flag} is not handed on`), flag);
  for (const flag of ["middleware", "logits-processors", "worker-extension-cls", "tool-parser-plugin"])
    assert.throws(() => plan([`--${flag}`, "x.y"]), new RegExp(`--${flag} is not handed on`), flag);
  assert.throws(() => plan(["--no-such-flag"]), /is not a flag/);
});

test("without vLLM its own flags are for it", () => {
  assert.throws(() => resolveSettings(["--all2all-backend", "naive"], {}), /is for --engine vllm/);
});

test("several machines: one private address, said", () => {
  assert.throws(() => plan(["--nnodes", "2"]), refused(/--vllm-host-ip/));
  assert.throws(() => plan(["--vllm-host-ip", "0.0.0.0"]), refused(/neither encrypted/));
  assert.throws(() => plan(["--vllm-host-ip", "8.8.8.8"]), refused(/a private address/));
  assert.throws(() => plan(["--vllm-host-ip", "node-1"]), refused(/an address, not a name/));
  const { exposed, environment } = plan([
    ...["--vllm-host-ip", "10.0.0.5", "--data-parallel-address", "10.0.0.1", "--data-parallel-rpc-port", "13345"],
    ...["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_ip":"10.0.0.5","kv_port":14579}'],
  ]);
  assert.equal(environment["VLLM_HOST_IP"], "10.0.0.5");
  assert.deepEqual(exposed, [
    "10.0.0.5, any port: torch.distributed and vLLM's own channels (VLLM_HOST_IP)",
    "10.0.0.1:13345/tcp (--data-parallel-address)",
    "10.0.0.5:14579/tcp (kv_port)",
    "5600/tcp (VLLM_NIXL_SIDE_CHANNEL_PORT)",
  ]);
  assert.deepEqual(plan([]).exposed, []);
});

test("a KV connector on a public address, or no JSON, is refused", () => {
  assert.throws(() => plan(["--kv-transfer-config", '{"kv_ip":"1.1.1.1"}']), refused(/kv_ip takes a private address/));
  assert.throws(() => plan(["--kv-transfer-config", "kv"]), refused(/a JSON object/));
});

test("code that a value names is refused as the flags for it are", () => {
  assert.throws(() => plan(["--distributed-executor-backend", "my.Executor"]), refused(/loaded by its name/));
  assert.ok(plan(["--distributed-executor-backend", "mp"]).words.includes("mp"));
  for (const [flag, member] of [
    ["kv-transfer-config", "kv_connector_module_path"],
    ["ec-transfer-config", "ec_connector_module_path"],
    ["structured-outputs-config", "reasoning_parser_plugin"],
  ] as const) {
    assert.throws(() => plan([`--${flag}`, JSON.stringify({ [member]: "x.y" })]), refused(new RegExp(member)));
    assert.ok(plan([`--${flag}`, JSON.stringify({ [member]: null })]).words.includes(`--${flag}`));
  }
});

test("code that is named within a value, at any depth, is refused", () => {
  const config = (flag: string, value: object) => plan([`--${flag}`, JSON.stringify(value)]);
  const connector = { kv_connector: "Mine", kv_connector_module_path: "my.module" };
  for (const [flag, value, member] of [
    ["kv-transfer-config", { kv_connector_extra_config: { connectors: [connector] } }, "kv_connector_module_path"],
    ["kv-transfer-config", { kv_connector_extra_config: { spec_module_path: "my.spec" } }, "spec_module_path"],
    ["compilation-config", { inductor_passes: { post_grad_custom_post_pass: "my.pass" } }, "inductor_passes"],
    ["compilation-config", { mode: 3, backend: "my.module.backend" }, "backend"],
    ["additional-config", { a: [{ worker_cls: "my.Worker" }] }, "worker_cls"],
  ] as const)
    assert.throws(() => config(flag, value), refused(new RegExp(`--${flag}: ${member} is`)));
  for (const value of [{ mode: 3, backend: "inductor", inductor_passes: {} }, { custom_ops: ["+rms_norm"] }])
    assert.ok(config("compilation-config", value).words.includes("--compilation-config"));
});

test("connectors within a connector are held to their addresses", () => {
  const multi = (...connectors: object[]) => [
    "--kv-transfer-config",
    JSON.stringify({ kv_connector: "MultiConnector", kv_connector_extra_config: { connectors } }),
  ];
  assert.throws(() => plan(multi({ kv_connector: "P2pNcclConnector", kv_ip: "0.0.0.0" })), refused(/kv_ip takes one/));
  assert.deepEqual(plan(multi({ kv_connector: "NixlConnector" }, { kv_ip: "10.0.0.5", kv_port: 1 })).exposed, [
    "5600/tcp (VLLM_NIXL_SIDE_CHANNEL_PORT)",
    "10.0.0.5:1/tcp (kv_port)",
  ]);
});

test("what a connector is told of elsewhere is inside, or a name that the firewall hears of", () => {
  const extra = (config: object) =>
    plan([
      "--kv-transfer-config",
      JSON.stringify({ kv_connector: "LMCacheConnectorV1", kv_connector_extra_config: config }),
    ]).exposed;
  for (const place of ["redis://8.8.8.8:6379", "lm://user:secret@0.0.0.0:65432", "8.8.8.8", "[2606:4700::1111]:80"])
    assert.throws(() => extra({ remote: { url: place } }), refused(/kv_connector_extra_config url takes/), place);
  assert.deepEqual(
    extra({
      "lmcache.remote_url": "lm://cache:65432/x",
      metadata: ["redis://10.0.0.5:6379", "http://127.0.0.1:80", "[fd00::5]:9"],
      master: "mooncake-master:50051",
      ...{
        protocol: "rdma",
        device: "mlx5_0",
        path: "file:///var/kv",
        chunk: 256,
        on: true,
        word: "a:b",
        half: "x://",
      },
    }),
    [
      "cache:65432 (kv_connector_extra_config lmcache.remote_url)",
      "10.0.0.5:6379 (kv_connector_extra_config metadata)",
      "[fd00::5]:9 (kv_connector_extra_config metadata)",
      "mooncake-master:50051 (kv_connector_extra_config master)",
    ],
  );
});

test("variables that are handed on are no way around: profilers, and addresses that are not one private place", () => {
  const given = (env: Readonly<Record<string, string>>) =>
    plan(
      Object.keys(env).flatMap((name) => ["--vllm-environment", name]),
      { ...ENV, ...env },
    );
  for (const name of ["VLLM_TORCH_PROFILER_DIR", "VLLM_LOGGING_CONFIG_PATH"])
    assert.throws(() => given({ [name]: "/tmp/x" }), refused(new RegExp(`${name} is not handed on`)));
  for (const address of ["0.0.0.0", "8.8.8.8", "node-1"])
    assert.throws(() => given({ VLLM_NIXL_SIDE_CHANNEL_HOST: address }), refused(/VLLM_NIXL_SIDE_CHANNEL_HOST takes/));
  assert.throws(() => given({ VLLM_DP_MASTER_IP: "8.8.8.8" }), refused(/VLLM_DP_MASTER_IP takes a private/));
  assert.deepEqual(given({ VLLM_NIXL_SIDE_CHANNEL_HOST: "10.0.0.5", VLLM_NIXL_SIDE_CHANNEL_PORT: "5700" }).exposed, [
    "10.0.0.5:5700/tcp (VLLM_NIXL_SIDE_CHANNEL_HOST)",
  ]);
  assert.deepEqual(given({ VLLM_NIXL_SIDE_CHANNEL_HOST: "localhost", VLLM_DP_MASTER_IP: "127.0.0.1" }).exposed, []);
});

test("events of the cache and features of media go to one private address, or to none", () => {
  const events = (config: object) => plan(["--kv-events-config", JSON.stringify(config)]).exposed;
  assert.throws(() => events({ enable_kv_cache_events: true }), refused(/kv-events-config endpoint takes/));
  assert.throws(() => events({ endpoint: "tcp://8.8.8.8:5557" }), refused(/a private address/));
  assert.throws(
    () => events({ endpoint: "tcp://127.0.0.1:5557", replay_endpoint: "tcp://*:5558" }),
    refused(/replay_endpoint/),
  );
  assert.deepEqual(events({ endpoint: "tcp://127.0.0.1:5557" }), []);
  assert.deepEqual(events({ endpoint: "ipc:///run/vllm/events" }), []);
  assert.deepEqual(events({ endpoint: "tcp://10.0.0.5:5557" }), ["10.0.0.5:5557/tcp (endpoint)"]);
  assert.deepEqual(events({ endpoint: "tcp://[fd00::5]:5557" }), ["fd00::5:5557/tcp (endpoint)"]);
  const encoder = (ip: string) => plan(["--ec-transfer-config", JSON.stringify({ ec_ip: ip })]).exposed;
  assert.throws(() => encoder("0.0.0.0"), refused(/ec_ip/));
  assert.deepEqual(encoder("10.0.0.5"), ["10.0.0.5:14579/tcp (ec_port)"]);
});
