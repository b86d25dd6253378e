/**
 * The pools of upstreams that the settings want: built here, started and ended by who composes the server.
 *
 * Nothing connects before `start`. Called by compose.ts' like.
 */
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Redactor } from "#base/redact.ts";
import type { Settings } from "#config/settings.ts";
import { UpstreamClient, type UpstreamClientOptions } from "#egress/upstream/client.ts";
import { namedServers } from "#egress/upstream/names.ts";
import { createBlockHasher } from "#engine/prefix/hash.ts";
import { PrefixNamer } from "#serving/upstreams/affinity.ts";
import { HealthWatch } from "#serving/upstreams/health.ts";
import { Membership } from "#serving/upstreams/membership.ts";
import { registerUpstreamMetrics } from "#serving/upstreams/metrics.ts";
import { type PoolOptions, UpstreamPool } from "#serving/upstreams/pool.ts";
import { UpstreamScrape } from "#serving/upstreams/scrape.ts";
import { followFiles, RenewedCredentials } from "./upstream-credentials.ts";
import { modelPlan, type UpstreamModel, type UpstreamModelSettings, type UpstreamSource } from "./upstream-models.ts";

export type UpstreamSettings = UpstreamModelSettings &
  Pick<
    Settings,
    | "upstreamMaxRequests"
    | "upstreamMaxWaiting"
    | "upstreamMaxWait"
    | "upstreamConnectTimeout"
    | "upstreamFirstByteTimeout"
    | "upstreamIdleTimeout"
    | "upstreamTimeout"
    | "upstreamRetryPercent"
    | "upstreamRetriesPerSecond"
    | "upstreamHealthInterval"
    | "upstreamDnsInterval"
  >;

export interface OpenedModel extends Pick<UpstreamModel, "name" | "aliases" | "upstreamModel"> {
  readonly pool: UpstreamPool;
  /** What the upstreams say that they serve, adapters left out; none before the first look. */
  served(): readonly string[];
  /** Tokens that a sequence may hold, as they say; 0: they have not. */
  contextLength(): number;
}

export interface Upstreams {
  readonly models: readonly OpenedModel[];
  /** Their own metrics. */
  readonly scrape: UpstreamScrape;
  /** Looks names up and upstreams over, once; resolves whatever came of it, and goes on. */
  start(): Promise<void>;
  /** Nothing new; resolves when what is under way has ended. */
  close(): Promise<void>;
  /** At once. */
  destroy(): Promise<void>;
}

interface Opened {
  readonly model: OpenedModel;
  readonly watch: HealthWatch;
  readonly memberships: readonly { start(): Promise<void>; stop(): void }[];
  readonly credentials: RenewedCredentials;
}

/** Not of the settings: how much is enough does not depend on the place. */
const BALANCE = {
  affinityFactor: 1.5,
  affinitySlackTokens: 8192,
  affinityEntries: 65_536,
  slowStartMs: 30_000,
  consecutiveFailures: 5,
  failureShare: 0.5,
  failureLeast: 20,
  ejectMs: 5000,
  ejectMostMs: 300_000,
  ejectShare: 0.5,
};
const HEALTH_TIMEOUT_MS = 5000;

export interface UpstreamEvents {
  readonly log: Log;
  /** A key that is new, so that it can be looked for in what is printed. */
  readonly hide: Redactor["also"];
}

/** @returns undefined: the settings name no upstream. @throws StartupError */
export async function openUpstreams(
  settings: UpstreamSettings,
  registry: Registry,
  { log, hide }: UpstreamEvents,
): Promise<Upstreams | undefined> {
  const { upstream } = modelPlan(settings);
  if (upstream.length === 0) return undefined;
  const pools = new Map<string, UpstreamPool>();
  const observerOf = registerUpstreamMetrics(registry, () => pools);
  const namer = new PrefixNamer(await createBlockHasher("sha256"));
  const opened = upstream.map((model) => {
    const label = model.name ?? model.upstreamModel ?? "upstream";
    const pool = new UpstreamPool({ ...poolOptions(settings), namer, observer: observerOf(label) });
    pools.set(label, pool);
    const { key } = model.credentials;
    if (key !== undefined) hide(key);
    const credentials = new RenewedCredentials({ model, label, hide, log });
    return openModel({ model, pool, credentials, settings, log });
  });
  const scrape = new UpstreamScrape({ pools: () => pools, registry, log });
  return { scrape, ...lifeOf(opened, settings.upstreamHealthInterval > 0) };
}

function lifeOf(opened: readonly Opened[], watched: boolean): Omit<Upstreams, "scrape"> {
  const all = <T>(run: (each: Opened) => Promise<T>) => Promise.all(opened.map(run));
  let unfollow = (): void => {};
  const stop = (): void => {
    unfollow();
    for (const { watch, memberships } of opened) {
      watch.stop();
      for (const membership of memberships) membership.stop();
    }
  };
  return {
    models: opened.map(({ model }) => model),
    start: async () => {
      unfollow = followFiles(opened.map(({ credentials }) => credentials));
      await all(async ({ watch, memberships }) => {
        await Promise.all(memberships.map((membership) => membership.start()));
        await (watched ? watch.start() : watch.look());
      });
    },
    close: async () => {
      stop();
      await all(({ model }) => model.pool.close());
    },
    destroy: async () => {
      stop();
      await all(({ model }) => model.pool.destroy());
    },
  };
}

interface ModelParts {
  readonly model: UpstreamModel;
  readonly pool: UpstreamPool;
  readonly credentials: RenewedCredentials;
  readonly settings: UpstreamSettings;
  readonly log: Log;
}

function openModel({ model, pool, credentials, settings, log }: ModelParts): Opened {
  const { name, aliases, upstreamModel } = model;
  const client = clientMaker(credentials, settings);
  const memberships: Membership<Server>[] = [];
  for (const source of model.sources) {
    const { place, label, weight } = source;
    if (place.kind === "fixed") pool.add({ label, link: client({ origin: place.origin }) }, weight);
    else if (place.kind === "unix") {
      const { socketPath } = place;
      pool.add({ label, link: client({ origin: "http://localhost", socketPath }) }, weight);
    } else memberships.push(membershipOf(source, place, pool, client, settings, log));
  }
  const intervalMs = settings.upstreamHealthInterval * 1000;
  const watch = new HealthWatch({ pool, intervalMs, timeoutMs: HEALTH_TIMEOUT_MS, log });
  return {
    model: {
      name,
      aliases,
      upstreamModel,
      pool,
      served: () => watch.models(),
      contextLength: () => watch.contextLength(),
    },
    watch,
    memberships,
    credentials,
  };
}

type Server = Awaited<ReturnType<typeof namedServers>>["servers"][number];
type Client = (place: Pick<UpstreamClientOptions, "origin" | "socketPath" | "address">) => UpstreamClient;

function membershipOf(
  { label, weight }: UpstreamSource,
  place: Parameters<typeof namedServers>[0],
  pool: UpstreamPool,
  client: Client,
  settings: UpstreamSettings,
  log: Log,
): Membership<Server> {
  const intervalMs = settings.upstreamDnsInterval * 1000;
  return new Membership<Server>({
    pool,
    label,
    weight,
    log,
    find: () => namedServers(place, { intervalMs, plainAnywhere: settings.upstreamPlainAnywhere }),
    open: ({ origin, address }) => client({ origin, address }),
  });
}

function clientMaker({ current }: RenewedCredentials, settings: UpstreamSettings): Client {
  return (place) =>
    new UpstreamClient({
      ...place,
      // Some more, for what is only looked at: how it is, what it serves, its metrics.
      connections: settings.upstreamMaxRequests + 3,
      connectMs: milliseconds(settings.upstreamConnectTimeout),
      plainAnywhere: settings.upstreamPlainAnywhere,
      credentials: current,
    });
}

function poolOptions(settings: UpstreamSettings): PoolOptions {
  return {
    ...BALANCE,
    maxInFlight: settings.upstreamMaxRequests,
    maxWaiting: settings.upstreamMaxWaiting,
    maxWaitMs: milliseconds(settings.upstreamMaxWait),
    retryShare: settings.upstreamRetryPercent / 100,
    retriesPerSecond: settings.upstreamRetriesPerSecond,
    timeouts: {
      firstByteMs: milliseconds(settings.upstreamFirstByteTimeout),
      idleMs: milliseconds(settings.upstreamIdleTimeout),
      totalMs: milliseconds(settings.upstreamTimeout),
    },
  };
}

/** Timers take whole ones. */
function milliseconds(seconds: number): number {
  return Math.max(1, Math.round(seconds * 1000));
}
