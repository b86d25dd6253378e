import assert from "node:assert/strict";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { SettingError } from "./kinds.ts";
import { resolveSettings } from "./resolve.ts";
import { flagOf, SETTINGS, settingRows, variableOf } from "./settings.ts";

const file = (text: string): string => {
  const path = join(mkdtempSync(join(tmpdir(), "castellan-config-")), "config.yaml");
  writeFileSync(path, text);
  return path;
};
const refused = (argv: readonly string[], message: RegExp, env: Record<string, string> = {}): void => {
  assert.throws(
    () => resolveSettings(argv, env),
    (error) => error instanceof SettingError && message.test(error.message),
    argv.join(" "),
  );
};

test("flag over variable over file over default", () => {
  const config = file("port: 1001\nmax-n: 5\nlog_level: warn\n");
  const env = { CASTELLAN_PORT: "1002", VLLM_MAX_N_SEQUENCES: "7" };
  const all = resolveSettings(["--config", config, "--port", "1003"], env);
  assert.equal(all.settings.port, 1003);
  assert.equal(all.settings.maxN, 7);
  assert.equal(all.settings.logLevel, "warn");
  assert.equal(all.settings.host, "127.0.0.1");
  assert.deepEqual(
    [...(["port", "maxN", "logLevel", "host"] as const)].map((name) => all.sources.get(name)),
    ["flag", "variable", "file", "default"],
  );
});

test("vLLM's command line means what it means there", () => {
  const { settings, model } = resolveSettings(
    [
      "MODEL",
      "--port=8000",
      "--max_model_len",
      "4096",
      "--api-key",
      "a",
      "b",
      "--served-model-name",
      "x",
      "y",
      "--no-enable-auto-tool-choice",
    ],
    {},
  );
  assert.equal(model, "MODEL");
  assert.equal(settings.maxModelLen, 4096);
  assert.deepEqual(settings.apiKey, ["a", "b"]);
  assert.deepEqual(settings.servedModelName, ["x", "y"]);
  assert.equal(settings.enableAutoToolChoice, false);
  assert.deepEqual(resolveSettings(["--api-key", "a", "--api-key", "b"], {}).settings.apiKey, ["a", "b"]);
  assert.equal(resolveSettings(["--model", "M"], {}).model, "M");
});

test("lengths, sizes and durations are read as people write them", () => {
  const { settings } = resolveSettings(
    ["--max-model-len", "32k", "--kv-cache-memory-bytes", "1.5GiB", "--shutdown-timeout", "2m"],
    {},
  );
  assert.equal(settings.maxModelLen, 32_000);
  assert.equal(settings.kvCacheMemoryBytes, 1.5 * 2 ** 30);
  assert.equal(settings.shutdownTimeout, 120);
  assert.equal(resolveSettings(["--max-model-len", "1K"], {}).settings.maxModelLen, 1024);
  assert.equal(resolveSettings(["--max-model-len", "auto"], {}).settings.maxModelLen, undefined);
});

test("what is wrong is refused by its name, with the nearest known one", () => {
  refused(["--prot", "1"], /--prot is not a flag \(did you mean --port\?\)/);
  refused(["--port", "70000"], /--port lies between 0 and 65535/);
  refused(["--port", "12x"], /--port takes a whole number/);
  refused(["--port"], /--port takes a value/);
  refused(["--no-port"], /--port is not a switch/);
  refused(["--log-level", "loud"], /is one of debug, info/);
  refused(["--tool-call-parser", "loud"], /--tool-call-parser is one of auto, hermes, llama3_json, .*gpt_oss, none/);
  refused(["--reasoning-parser", "loud"], /--reasoning-parser is one of auto, deepseek_r1, .*openai, gpt_oss, none/);
  refused(["-p", "1"], /two dashes/);
  refused(["a", "b"], /one model is served at a time/);
  refused(["--trust-remote-code"], /vLLM flag.*no code from a model is ever run/);
  refused([], /CASTELLAN_PORT takes a whole number/, { CASTELLAN_PORT: "x" });
  refused(["--config", file("prot: 1")], /prot in the config file is not a setting \(did you mean port\?\)/);
  refused(["--config", file("- a")], /map of settings/);
  refused(["--config", "/nowhere.yaml"], /cannot be read/);
  refused(["--config", file("a: &a [*a, *a]")], /config file/);
});

test("flags of vLLM without effect, secrets on the command line and loosened walls are warned of", () => {
  const { warnings } = resolveSettings(
    ["--gpu-memory-utilization", "0.9", "--api-key", "top-secret", "--max-n", "99", "--enforce-eager"],
    { CASTELLAN_PROT: "1" },
  );
  for (const expected of [
    /gpu-memory-utilization.*no effect/,
    /enforce-eager/,
    /--api-key on the command line/,
    /--max-n is not at its safe default/,
    /CASTELLAN_PROT is not a setting/,
  ]) {
    assert.ok(
      warnings.some((warning) => expected.test(warning)),
      String(expected),
    );
  }
  assert.ok(!warnings.some((warning) => warning.includes("top-secret")));
});

test("every setting has a flag and a variable of its own, a bounded doc, and a default that it would accept", () => {
  const flags = new Set<string>();
  for (const [name, row] of settingRows()) {
    for (const flag of [flagOf(name), ...(row.flags ?? [])]) {
      assert.ok(!flags.has(flag), flag);
      flags.add(flag);
    }
    assert.match(variableOf(name), /^CASTELLAN_[A-Z_]+$/);
    assert.ok(row.doc.length > 10 && row.doc.endsWith("."), name);
    if (row.fallback !== undefined) assert.deepEqual(row.parse(row.fallback), row.fallback, name);
  }
});

test("weights are names with numbers above 0", () => {
  const { parse } = SETTINGS.tenantWeights;
  assert.deepEqual(
    [...parse(["a=2", "b=c=0.5"])],
    [
      ["a", 2],
      ["b=c", 0.5],
    ],
  );
  for (const bad of ["a", "a=", "=1", "a=0", "a=-1", "a=1001", "a=x"]) assert.throws(() => parse([bad]), SettingError);
});
