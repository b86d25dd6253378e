/**
 * What an engine process gets of the server's environment. Called by cli/, which starts the first one, and by launch.ts.
 */
import type { Environment } from "#config/environment.ts";

/** What a GPU or a library path needs; everything else of the environment stays here (Wall: T17). */
const ENGINE_VARIABLES = [
  "PATH",
  "LD_LIBRARY_PATH",
  "CUDA_VISIBLE_DEVICES",
  "HIP_VISIBLE_DEVICES",
  "GGML_VK_VISIBLE_DEVICES",
  "OMP_NUM_THREADS",
];

export function engineEnvironment(env: Environment): Record<string, string> {
  const passed = ENGINE_VARIABLES.map((name) => [name, env[name]] as const).filter(
    (entry): entry is readonly [string, string] => entry[1] !== undefined,
  );
  return Object.fromEntries(passed);
}
