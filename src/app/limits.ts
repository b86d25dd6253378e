/**
 * Limits and usage as the settings want them: the books of a metered gate. Called by compose.ts.
 */
import { readFileSync } from "node:fs";
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import { Secret } from "#base/secret.ts";
import type { Settings } from "#config/settings.ts";
import type { Limits as Figures } from "#core/limits.ts";
import type { Gate } from "#policy/gate.ts";
import { FallbackLedger } from "#policy/limits/fallback-ledger.ts";
import { type Books, meteredGate } from "#policy/limits/gate.ts";
import type { Ledger, Spent } from "#policy/limits/ledger.ts";
import { LIMITS, named, PRICE } from "#policy/limits/limit-words.ts";
import { MemoryLedger } from "#policy/limits/memory-ledger.ts";
import { registerLimitMetrics } from "#policy/limits/metrics.ts";
import type { Price } from "#policy/limits/price.ts";
import { QueueShares } from "#policy/limits/queue-shares.ts";
import type { Store } from "#policy/store/store.ts";
import { createUsageBook } from "#policy/usage/book.ts";
import { spentIn, usageSink } from "#policy/usage/table.ts";
import { redisUrlOf } from "./given-urls.ts";
import { operatorObject } from "./operator-json.ts";
import type { Policy } from "./policy.ts";
import { StartupError } from "./startup-error.ts";

type LimitSettings = Pick<
  Settings,
  | "keyLimits"
  | "tenantLimits"
  | "modelLimits"
  | "modelPrices"
  | "tenantQueueBounds"
  | "redisUrl"
  | "redisUrlFile"
  | "redisCaFile"
  | "limitsWhenUnavailable"
  | "maxNumQueuedReqs"
>;

export interface Limits {
  /** The gate with limits and usage around it. */
  around(gate: Gate): Gate;
  /** What is refused is counted here from now on. */
  observe(registry: Registry): void;
  /** When all work has been settled, before the store closes. */
  close(): Promise<void>;
}

/** @throws StartupError */
export async function openLimits(
  settings: LimitSettings,
  policy: Pick<Policy, "current">,
  store: Store,
  log: Log,
): Promise<Limits> {
  const words = wordsOf(readWords(settings), policy);
  let metrics: ReturnType<typeof registerLimitMetrics> | undefined;
  const onUnavailable = (): void => metrics?.onUnavailable();
  const ledger = await ledgerOf(settings, spentIn(store.db), onUnavailable, log);
  const usage = createUsageBook({ sink: usageSink(store), log });
  const books: Books = {
    ...words,
    ledger,
    usage,
    queue: new QueueShares(settings.tenantQueueBounds ? settings.maxNumQueuedReqs : Number.POSITIVE_INFINITY),
    onRefused: (subject, kind) => metrics?.onRefused(subject, kind),
    onUnavailable,
    now: Date.now,
  };
  return {
    around: (gate) => meteredGate(gate, books),
    observe: (registry) => {
      metrics = registerLimitMetrics(registry);
    },
    close: async () => {
      await usage.close();
      await ledger.close();
    },
  };
}

/** What the flags say; each only where the policy file says nothing (policy-file.ts). */
interface Words {
  readonly keys: Figures | undefined;
  readonly tenants: Named<Figures> | undefined;
  readonly models: Named<Figures> | undefined;
  readonly prices: Named<Price> | undefined;
}

type Named<T> = Readonly<Record<string, T>>;

function readWords({ keyLimits, tenantLimits, modelLimits, modelPrices }: LimitSettings): Words {
  return {
    keys: read("--key-limits", keyLimits, LIMITS) as Figures | undefined,
    tenants: read("--tenant-limits", tenantLimits, named(LIMITS)) as Named<Figures> | undefined,
    models: read("--model-limits", modelLimits, named(LIMITS)) as Named<Figures> | undefined,
    prices: read("--model-prices", modelPrices, named(PRICE)) as Named<Price> | undefined,
  };
}

/** Asked at every call: the file may have been read anew. */
function wordsOf(flags: Words, policy: Pick<Policy, "current">): Pick<Books, "keyLimits" | "limitsOf" | "priceOf"> {
  const join = joiner();
  const model = (name: string) => pick(policy.current().file.models, name);
  return {
    keyLimits: (own) => join(own, (policy.current().file.keys?.limits as Figures | undefined) ?? flags.keys),
    limitsOf: (kind, id) => {
      const said = kind === "tenant" ? policy.current().tenants.of(id)?.limits : model(id)?.limits;
      return (said as Figures | undefined) ?? pick(kind === "tenant" ? flags.tenants : flags.models, id);
    },
    priceOf: (name) => (model(name)?.price as Price | undefined) ?? pick(flags.prices, name),
  };
}

function read<T>(
  flag: string,
  text: string | undefined,
  schema: Parameters<typeof operatorObject<T>>[2],
): T | undefined {
  return text === undefined ? undefined : operatorObject(flag, text, schema);
}

function pick<T>(values: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  if (values === undefined) return undefined;
  return Object.hasOwn(values, name) ? values[name] : values["*"];
}

/** A key's own limits before those of every key. The same object for the same limits, as rules are found by it. */
function joiner(): (own: Figures, defaults: Figures | undefined) => Figures {
  let known = new WeakMap<Figures, Figures>();
  let under: Figures | undefined;
  return (own, defaults) => {
    if (defaults === undefined) return own;
    if (defaults !== under) {
      under = defaults;
      known = new WeakMap();
    }
    let joined = known.get(own);
    if (joined === undefined) {
      joined = { ...defaults, ...own };
      known.set(own, joined);
    }
    return joined;
  };
}

/** The client of Redis is loaded where there is one. */
async function ledgerOf(settings: LimitSettings, spent: Spent, onUnavailable: () => void, log: Log): Promise<Ledger> {
  const { redisCaFile, limitsWhenUnavailable } = settings;
  const redisUrl = redisUrlOf(settings);
  if (redisUrl === undefined) return new MemoryLedger(spent);
  const url = new Secret(redisUrl);
  const { connectRedis, isPlainRemote, RedisUrlError } = await import("#policy/limits/redis.ts");
  const { RedisLedger } = await import("#policy/limits/redis-ledger.ts");
  try {
    if (isPlainRemote(url))
      log(
        "warn",
        "the Redis of --redis-url is another machine without TLS: rediss:// keeps passwords and counters to it",
      );
    const redis = connectRedis({
      url,
      ...(redisCaFile === undefined ? {} : { ca: certificates(redisCaFile) }),
      onState: (state, reason) =>
        state === "ready"
          ? log("info", "the shared limits are there")
          : log("error", "the shared limits are away", reason === undefined ? {} : { reason }),
    });
    const shared = new RedisLedger({ redis, spent, log });
    return limitsWhenUnavailable === "open"
      ? new FallbackLedger(shared, new MemoryLedger(spent), onUnavailable)
      : shared;
  } catch (error) {
    if (error instanceof RedisUrlError) throw new StartupError(`--redis-url: ${error.message}`);
    throw error;
  }
}

function certificates(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new StartupError(`--redis-ca-file cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
}
