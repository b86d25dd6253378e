import assert from "node:assert/strict";
import { test } from "node:test";
import { resolveSettings } from "#config/resolve.ts";
import { SETTINGS, settingRows } from "#config/settings.ts";
import { routes } from "#routes/index.ts";
import { toldSettings } from "./operations.ts";
import { switchedOff } from "./switches.ts";

const settingsOf = (argv: readonly string[], env: Record<string, string> = {}) => resolveSettings(argv, env).settings;

test("what is told of the settings has no text of the operator's", () => {
  const canary = "/canary/of/the/operator";
  const settings = Object.fromEntries(
    settingRows().map(([name, row]) => {
      if (row.many === true) return [name, [canary, canary]];
      return [name, typeof row.fallback === "number" || typeof row.fallback === "boolean" ? row.fallback : canary];
    }),
  ) as unknown as ReturnType<typeof settingsOf>;
  const told = toldSettings(settings);
  assert.ok(!JSON.stringify(told).includes("canary"));
  assert.deepEqual(Object.keys(told), Object.keys(SETTINGS));
  assert.deepEqual([told["apiKey"], told["stateDir"], told["port"]], ["(2 given)", "(given)", 8000]);
});

test("choices and defaults are told, secrets never", () => {
  const env = { CASTELLAN_PREFIX_CACHING_HASH_SEED: "7", HF_TOKEN: "hf_secret" };
  const told = toldSettings(settingsOf(["--scheduling-policy", "priority", "--host", "10.1.2.3"], env));
  assert.deepEqual(
    [told["schedulingPolicy"], told["host"], told["opsHost"], told["hfToken"], told["prefixCachingHashSeed"]],
    ["priority", "(given)", "127.0.0.1", "(given)", "(given)"],
  );
  assert.ok(!JSON.stringify(told).includes("hf_secret"));
});

test("a route waits for its setting, which is named", () => {
  const off = (path: string, ...argv: readonly string[]): string | undefined => {
    const route = routes.find((one) => one.path === path);
    assert.ok(route !== undefined, path);
    return switchedOff(route, settingsOf(argv));
  };
  assert.deepEqual(
    ["/sleep", "/collective_rpc", "/start_profile", "/update_weights", "/fault_tolerance/apply", "/tokenizer_info"].map(
      (path) => off(path),
    ),
    [
      "--enable-sleep-mode",
      "--server-dev-mode",
      "--profile-dir",
      "--weight-roots",
      "--enable-fault-tolerance",
      "--enable-tokenizer-info-endpoint",
    ],
  );
  assert.equal(off("/v1/load_lora_adapter"), "--enable-lora and --allow-runtime-lora-updating");
  assert.equal(off("/v1/load_lora_adapter", "--enable-lora"), "--allow-runtime-lora-updating");
  assert.equal(off("/sleep", "--enable-sleep-mode"), undefined);
  assert.equal(off("/update_weights", "--weight-roots", "/w"), undefined);
  for (const path of ["/pause", "/server_info", "/abort_requests", "/reset_prefix_cache"])
    assert.equal(off(path), undefined, path);
});
