/**
 * A vLLM behind this server: planned, started, and named to the gateway as its one upstream. Called by serve.ts.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { StartupError } from "#app/startup-error.ts";
import type { Log } from "#base/log.ts";
import type { Redactor } from "#base/redact.ts";
import { Secret } from "#base/secret.ts";
import type { Environment } from "#config/environment.ts";
import type { Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import { openStateDirectory, type StateDirectory } from "#policy/state.ts";
import { planVllm, type VllmPlan } from "./plan.ts";
import { ManagedVllm } from "./process.ts";

export interface VllmBehind {
  readonly plan: VllmPlan;
  /** Those of the server, with vLLM as what answers. */
  readonly settings: Settings;
  /** @param answers asks it. @throws StartupError */
  start(answers: () => Promise<boolean>): Promise<ManagedVllm>;
  /** When it has ended. */
  clear(): void;
}

export interface VllmGround {
  readonly state: StateDirectory;
  /** Hears of the key before anything else does. */
  readonly redact: Redactor;
  readonly log: Log;
}

/** @throws StartupError */
export function vllmBehind(resolved: Resolved, env: Environment, { state, redact, log }: VllmGround): VllmBehind {
  const { settings, passed, model } = resolved;
  if (model === undefined) throw new StartupError("--engine vllm needs a MODEL: what `vllm serve` takes");
  if (settings.upstream.length > 0 || settings.models !== undefined)
    throw new StartupError("--engine vllm starts its own server: leave --upstream and models out");
  const own = openStateDirectory(join(state.path, "vllm"), "folder of vLLM");
  // Not below the state directory, whose path may be too long for a socket's.
  const socketFolder = mkdtempSync(join(tmpdir(), "castellan-vllm-"));
  const key = new Secret(randomBytes(32).toString("base64url"));
  redact.also(key);
  own.write("key", Buffer.from(key.expose()));
  const plan = planVllm({ settings, model, passed, env, folder: own.path, socketFolder, key });
  return {
    plan,
    settings: {
      ...settings,
      upstream: [`unix:${plan.socketPath}`],
      upstreamKeyFile: join(own.path, "key"),
      servedModelName: settings.servedModelName.length > 0 ? settings.servedModelName : [model],
    },
    start: async (answers) => {
      const managed = new ManagedVllm({
        plan,
        state: own,
        probe: answers,
        startTimeoutMs: settings.vllmStartTimeout * 1000,
        redact,
        log,
      });
      try {
        await managed.start();
      } catch (error) {
        throw new StartupError(`${plan.command} cannot be started (--vllm-command): ${(error as Error).message}`);
      }
      return managed;
    },
    clear: () => rmSync(socketFolder, { recursive: true, force: true }),
  };
}
