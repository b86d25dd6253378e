/**
 * A server that computes nothing: every model is answered by servers behind it, among them a vLLM that it starts itself.
 * Called by serve.ts.
 */
import { collectDefaultMetrics } from "prom-client";
import type { GatewayNeeds } from "#app/computing.ts";
import { toldSettings } from "#app/operations.ts";
import { version } from "#app/paths.ts";
import { createServer, registerParts, type Server, type ServerParts } from "#app/server.ts";
import { StartupError } from "#app/startup-error.ts";
import { createRegistry } from "#base/metrics.ts";
import { Fault } from "#core/fault.ts";
import { NO_OBSERVER } from "#serving/observe.ts";
import { ServerInfo } from "#serving/server-info.ts";
import type { ServerOperations } from "#serving/server-operations.ts";
import { type Gateway, openGateway } from "./open.ts";

export interface GatewayServerParts extends ServerParts, GatewayNeeds {
  /** What is behind it, for people; absent: so many servers. */
  readonly description?: string;
}

export type GatewayServer = Server & Pick<Gateway, "answers">;

/** @throws StartupError */
export async function composeGateway(parts: GatewayServerParts): Promise<GatewayServer> {
  const registry = createRegistry();
  collectDefaultMetrics({ register: registry });
  registerParts(registry, parts);
  const gateway = await openGateway(parts, registry);
  if (gateway === undefined) throw new StartupError("no upstream is named");
  const made = await createServer(parts, {
    served: gateway.served,
    registry,
    observerOf: () => NO_OBSERVER,
    adapters: async () => absent(),
    operations: operationsOf(parts),
    ready: () => gateway.ready(),
    relay: (serving, stored) => gateway.relay(serving, stored, true),
  }).catch(async (error) => {
    await gateway.close(0);
    throw error;
  });
  const names = gateway.served.map((model) => model.names[0]);
  const models = names.length > 1 ? ` and ${names.length - 1} more` : "";
  const servers = `${gateway.servers} server${gateway.servers === 1 ? "" : "s"} behind this one`;
  return {
    ...made,
    names,
    description: `${models}(${parts.description ?? servers})`.trimStart(),
    width: 64,
    // What it is run for its servers know.
    generates: false,
    tasks: [],
    answers: () => gateway.answers(),
    closeModel: (graceMs) => gateway.close(graceMs),
  };
}

/** Of itself it can tell; the rest is asked of the servers behind it. */
function operationsOf({ settings }: ServerParts): ServerOperations {
  const system = { castellan: version(), node: process.version, platform: process.platform, arch: process.arch };
  const info = new ServerInfo({
    settings: toldSettings(settings),
    system,
    operations: { isPaused: () => false, sleepState: () => "awake" },
    engines: () => [],
  });
  return { engine: absent(), weights: absent(), profiles: absent(), supervision: absent(), info };
}

/** What an engine here would do: who asks for it is told that there is none. */
function absent<T extends object>(): T {
  const handler = {
    get: (_: object, name: string | symbol) => {
      // What is awaited is asked whether it is a promise.
      if (name === "then") return undefined;
      throw new Fault("not_implemented", "This server has no engine of its own: ask the servers behind it.");
    },
  };
  return new Proxy({}, handler) as T;
}
