import assert from "node:assert/strict";
import { test } from "node:test";
import { SettingError } from "./kinds.ts";
import { resolveSettings } from "./resolve.ts";

test("a folder for profiles, under vLLM's names too; what would be lost of them is an error", () => {
  const folderOf = (argv: readonly string[], env: Record<string, string> = {}): string | undefined =>
    resolveSettings(argv, env).settings.profileDir;
  assert.equal(folderOf([]), undefined);
  assert.equal(folderOf(["--profile-dir", "/p"]), "/p");
  assert.equal(folderOf(["--profiler-config", '{"profiler": "torch", "torch_profiler_dir": "/p"}']), "/p");
  assert.equal(folderOf([], { VLLM_TORCH_PROFILER_DIR: "/p" }), "/p");
  for (const [value, message] of [
    ['{"profiler": "cuda"}', /only torch/],
    ['{"profiler": "torch"}', /torch_profiler_dir names/],
    ['{"torch_profiler_dir": "/p", "record_shapes": true}', /record_shapes is not taken/],
    ['{"torch_profiler_dir": 1}', /torch_profiler_dir names/],
    ["{", /not JSON/],
  ] as const)
    assert.throws(
      () => folderOf(["--profiler-config", value]),
      (error) => error instanceof SettingError && message.test(error.message),
      value,
    );
});

test("vLLM's variable for development routes switches them on, and warns", () => {
  const { settings, warnings } = resolveSettings([], { VLLM_SERVER_DEV_MODE: "1" });
  assert.equal(settings.serverDevMode, true);
  assert.match(warnings.join("\n"), /--server-dev-mode is not at its safe default/);
  assert.equal(resolveSettings([], { VLLM_SERVER_DEV_MODE: "0" }).settings.serverDevMode, false);
});
