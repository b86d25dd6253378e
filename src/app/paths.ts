/**
 * Where things are: the package's own files, and the directories of the XDG base directory specification.
 */
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ROOT } from "#base/entry.ts";
import { parseJson } from "#base/json.ts";
import type { Environment } from "#config/environment.ts";

const NAME = "castellan";

export const DEMO_MODEL = fileURLToPath(new URL("assets/demo/castellan-demo.gguf", ROOT));

/** Of package.json. */
export function version(): string {
  const file = fileURLToPath(new URL("package.json", ROOT));
  const manifest = existsSync(file) ? parseJson(readFileSync(file)) : null;
  return manifest !== null &&
    typeof manifest === "object" &&
    !Array.isArray(manifest) &&
    typeof manifest["version"] === "string"
    ? manifest["version"]
    : "0.0.0";
}

export function stateDirectory(setting: string | undefined, env: Environment): string {
  return setting ?? join(base(env["XDG_STATE_HOME"], ".local/state"), NAME);
}

export function cacheDirectory(setting: string | undefined, env: Environment): string {
  return setting ?? join(base(env["XDG_CACHE_HOME"], ".cache"), NAME);
}

/** The specification says that relative paths in these variables are to be ignored. */
function base(variable: string | undefined, otherwise: string): string {
  return variable !== undefined && isAbsolute(variable) ? variable : join(homedir(), otherwise);
}
