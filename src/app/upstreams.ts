/**
 * The pools of upstreams that the settings want: built here, started and ended by who composes the server.
 *
 * Nothing connects before `start`. Called by compose.ts' like.
 */
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Redactor } from "#base/redact.ts";
import { UpstreamClient, type UpstreamClientOptions } from "#egress/upstream/client.ts";
import { namedServers } from "#egress/upstream/names.ts";
import { createBlockHasher } from "#engine/prefix/hash.ts";
import { PrefixNamer } from "#serving/upstreams/affinity.ts";
import { HealthWatch } from "#serving/upstreams/health.ts";
import { Membership } from "#serving/upstreams/membership.ts";
import { registerUpstreamMetrics } from "#serving/upstreams/metrics.ts";
import { UpstreamPool } from "#serving/upstreams/pool.ts";
import { UpstreamScrape } from "#serving/upstreams/scrape.ts";
import { followFiles, RenewedCredentials } from "./upstream-credentials.ts";
import { modelPlan, type UpstreamModel, type UpstreamModelSettings, type UpstreamSource } from "./upstream-models.ts";
import { healthOptions, milliseconds, poolOptions } from "./upstream-tuning.ts";

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
  /** Looked at more than once. */
  readonly watched: boolean;
}

export interface UpstreamEvents {
  readonly log: Log;
  /** A key that is new, so that it can be looked for in what is printed. */
  readonly hide: Redactor["also"];
}

/** @returns undefined: the settings name no upstream. @throws StartupError */
export async function openUpstreams(
  settings: UpstreamModelSettings,
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
    const pool = new UpstreamPool({
      ...poolOptions(model.tuning),
      ...(model.tuning.upstreamAffinityPercent === 0 ? {} : { namer }),
      observer: observerOf(label),
    });
    pools.set(label, pool);
    const { key } = model.credentials;
    if (key !== undefined) hide(key);
    const credentials = new RenewedCredentials({ model, label, hide, log });
    return openModel({ model, pool, credentials, plainAnywhere: settings.upstreamPlainAnywhere, log });
  });
  const scrape = new UpstreamScrape({ pools: () => pools, registry, log });
  return { scrape, ...lifeOf(opened) };
}

function lifeOf(opened: readonly Opened[]): Omit<Upstreams, "scrape"> {
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
      await all(async ({ watch, memberships, watched }) => {
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
  readonly plainAnywhere: boolean;
  readonly log: Log;
}

function openModel(parts: ModelParts): Opened {
  const { model, pool, credentials, log } = parts;
  const { name, aliases, upstreamModel, tuning } = model;
  const client = clientMaker(parts);
  const memberships: Membership<Server>[] = [];
  for (const source of model.sources) {
    const { place, label, weight } = source;
    if (place.kind === "fixed") pool.add({ label, link: client({ origin: place.origin }) }, weight);
    else if (place.kind === "unix") {
      const { socketPath } = place;
      pool.add({ label, link: client({ origin: "http://localhost", socketPath }) }, weight);
    } else memberships.push(membershipOf(source, place, client, parts));
  }
  const watch = new HealthWatch({ pool, ...healthOptions(tuning), log });
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
    watched: tuning.upstreamHealthInterval > 0,
  };
}

type Server = Awaited<ReturnType<typeof namedServers>>["servers"][number];
type Client = (place: Pick<UpstreamClientOptions, "origin" | "socketPath" | "address">) => UpstreamClient;

function membershipOf(
  { label, weight }: UpstreamSource,
  place: Parameters<typeof namedServers>[0],
  client: Client,
  { model, pool, plainAnywhere, log }: ModelParts,
): Membership<Server> {
  const intervalMs = model.tuning.upstreamDnsInterval * 1000;
  return new Membership<Server>({
    pool,
    label,
    weight,
    log,
    find: () => namedServers(place, { intervalMs, plainAnywhere }),
    open: ({ origin, address }) => client({ origin, address }),
  });
}

function clientMaker({ model: { tuning }, credentials, plainAnywhere }: ModelParts): Client {
  return (place) =>
    new UpstreamClient({
      ...place,
      // Some more, for what is only looked at: how it is, what it serves, its metrics.
      connections: tuning.upstreamMaxRequests + 3,
      connectMs: milliseconds(tuning.upstreamConnectTimeout),
      plainAnywhere,
      credentials: credentials.current,
    });
}
