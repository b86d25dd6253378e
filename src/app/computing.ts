/**
 * What answers the models of a server: an engine here, servers behind it, or a vLLM that it starts. Called by serve.ts.
 */
import type { Log } from "#base/log.ts";
import type { Redactor } from "#base/redact.ts";
import type { Environment } from "#config/environment.ts";
import type { Resolved } from "#config/resolve.ts";
import type { Settings } from "#config/settings.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import type { StateDirectory } from "#policy/state.ts";
import { type Launched, launch } from "./launch.ts";
import { findModel, type ModelSource, type SourceEvents } from "./model-source.ts";
import type { Server, ServerParts } from "./server.ts";
import { StartupError } from "./startup-error.ts";
import { localModel } from "./upstream-models.ts";

/** What a gateway needs besides what every server does. */
export interface GatewayNeeds {
  /** There where `relays` says so. */
  readonly media: Pick<MediaFetcher, "fetchAll"> | undefined;
  readonly saltKey: Uint8Array;
}

/** Whether servers behind this one answer any model. */
export function relays({ upstream, models, engine }: Settings): boolean {
  return upstream.length > 0 || models !== undefined || engine === "vllm";
}

/** Begun as early as it may be, built into a server when the rest is there. */
export interface Beginning {
  /** Rejects as soon as it is known that there will be no server. Nobody has to wait for it. */
  readonly begun: Promise<unknown>;
  /** @throws StartupError */
  build(parts: ServerParts & GatewayNeeds): Promise<Server>;
}

export interface BeginningParts {
  readonly resolved: Resolved;
  readonly env: Environment;
  readonly output: SourceEvents;
  readonly state: StateDirectory;
  readonly redact: Redactor;
  readonly log: Log;
}

/** Whether everything is computed behind this server. @throws StartupError settings that say two things */
export function computesNothing({ settings, model }: Resolved): boolean {
  if (settings.engine === "vllm") return true;
  if (!relays(settings) || localModel(settings) !== undefined) return false;
  if (model !== undefined)
    throw new StartupError(
      "--upstream answers instead of an engine here: leave MODEL out, or name both under models in the config file",
    );
  return true;
}

/** @throws StartupError */
export function begin(parts: BeginningParts): Beginning {
  if (!computesNothing(parts.resolved)) return beginEngine(parts);
  return parts.resolved.settings.engine === "vllm" ? beginVllm(parts) : beginGateway();
}

function beginEngine({ resolved, env, output, log }: BeginningParts): Beginning {
  const launching = launchModel(resolved, env, output, log);
  launching.catch(() => {});
  // What the modules compute and what a store waits for go together.
  const composing = launching.then(() => import("./compose.ts"));
  composing.catch(() => {});
  return {
    begun: launching,
    build: async (parts) => {
      const { source, launched } = await launching;
      const { compose } = await composing;
      return compose({ ...parts, source, launched });
    },
  };
}

function beginGateway(): Beginning {
  const composing = import("./gateway/compose.ts");
  return {
    begun: composing,
    build: async (parts) => (await composing).composeGateway(parts),
  };
}

/** Where it is and what it has is said at once; it may take minutes to answer, and /health says when it does. */
function beginVllm({ resolved, env, state, redact, log }: BeginningParts): Beginning {
  const loading = Promise.all([import("./vllm/launch.ts"), import("./gateway/compose.ts")]);
  return {
    begun: loading,
    build: async (parts) => {
      const [{ vllmBehind }, { composeGateway }] = await loading;
      const behind = vllmBehind(resolved, env, { state, redact, log });
      for (const place of behind.plan.exposed)
        log("warn", "vLLM's own processes talk unencrypted there: let its machines through the firewall, nobody else", {
          place,
        });
      const server = await composeGateway({
        ...parts,
        settings: behind.settings,
        description: `vLLM in this server's care, ${behind.plan.command}`,
      });
      const managed = await behind
        .start(() => server.answers())
        .catch(async (error: unknown) => {
          await server.closeModel(0);
          behind.clear();
          throw error;
        });
      return {
        ...server,
        closeModel: async (graceMs) => {
          await server.closeModel(graceMs);
          await managed.stop(graceMs);
          behind.clear();
        },
      };
    },
  };
}

/** Up to the engine's `init` message nothing waits but for a hub. */
async function launchModel(
  { settings, model }: Resolved,
  env: Environment,
  output: SourceEvents,
  log: Log,
): Promise<{ readonly source: ModelSource; readonly launched: Launched }> {
  const { speculativeConfig: config } = settings;
  const speculation = config === undefined ? undefined : (await import("./speculation.ts")).speculationPlan(config);
  const source = await findModel(model, settings, env, output);
  const draft =
    speculation?.draft === undefined ? undefined : await findModel(speculation.draft, settings, env, output);
  return { source, launched: await launch({ settings, env, source, draft, speculation, log }) };
}
