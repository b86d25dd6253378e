/**
 * The listeners' side of a server: which routes it has, and the settings of its corridor. Called by server.ts.
 */
import { stringifyJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import type { Redact } from "#base/redact.ts";
import type { Settings } from "#config/settings.ts";
import { openapi } from "#http/openapi.ts";
import type { Observer } from "#http/pipeline.ts";
import type { Relay } from "#http/relay.ts";
import type { AnyRoute, ListenerPlane } from "#http/route.ts";
import { createHttp, type Http } from "#http/server.ts";
import type { FindClient } from "#policy/client-address.ts";
import type { Gate } from "#policy/gate.ts";
import { routes, type Services } from "#routes/index.ts";
import { byVersion } from "#wire/anthropic/dialect.ts";
import { openai } from "#wire/openai/dialect.ts";
import { version } from "./paths.ts";
import { placed, switchedOff } from "./switches.ts";

export function declaredRoutes(settings: Settings): readonly AnyRoute<Services>[] {
  return routes.filter((route) => switchedOff(route, settings) === undefined).map((route) => placed(route, settings));
}

/** Made when it is asked for first: it takes longer than an answer should, once. */
export function openapiOf(declared: readonly AnyRoute<Services>[]): Services["openapi"] {
  const made = new Map<ListenerPlane, string>();
  return (plane) => {
    const text = made.get(plane) ?? stringifyJson(openapi(declared, version(), plane));
    made.set(plane, text);
    return text;
  };
}

export interface HttpParts {
  readonly settings: Settings;
  readonly gate: Gate;
  readonly client: FindClient;
  readonly redact: Redact;
  readonly log: Log;
}

export interface HttpWork {
  readonly declared: readonly AnyRoute<Services>[];
  readonly services: Services;
  readonly observer: Observer;
  readonly relay?: Relay<Services>;
}

/** @throws Error a route that a server may not run with */
export function openHttp({ settings, gate, client, redact, log }: HttpParts, work: HttpWork): Promise<Http> {
  const { declared, services, observer, relay } = work;
  return createHttp({
    routes: declared,
    services,
    gate,
    client,
    dialect: openai,
    orBy: byVersion,
    ...(relay === undefined ? {} : { relay }),
    options: {
      maxBodyBytes: settings.maxBodyBytes,
      maxUploadBytes: settings.maxUploadBytes,
      maxAudioBytes: settings.maxAudioMegabytes * 1024 ** 2,
      maxTimeoutMs: settings.requestTimeout * 1000,
      redact,
      requestIdHeader: settings.enableRequestIdHeaders,
      stallTimeoutMs: settings.streamStallTimeout * 1000,
      sseKeepAliveMs: settings.sseKeepAliveInterval * 1000,
      maxConnections: settings.maxConnections,
      maxConnectionsPerAddress: settings.maxConnectionsPerAddress,
      proxies: settings.trustedProxies.flatMap((item) => item.split(",")).filter((item) => item !== "unix"),
      maxConnectionAgeMs: settings.maxConnectionAge * 1000,
      accessLog: !settings.disableAccessLog,
    },
    observer,
    log,
  });
}
