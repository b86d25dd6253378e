/**
 * The numbers by which a model's upstreams are used: of the settings, or of the model's own entry in the config file.
 *
 * Invariant: an entry's number is held to the bounds of the setting. Pure. Callers: upstream-models.ts, upstreams.ts.
 */
import { z } from "zod";
import { SettingError } from "#config/kinds.ts";
import { SETTINGS, type Settings } from "#config/settings.ts";
import type { HealthOptions } from "#serving/upstreams/health.ts";
import type { PoolOptions } from "#serving/upstreams/pool.ts";
import { StartupError } from "./startup-error.ts";

/** As an entry spells it → the setting. */
export const TUNING = {
  "max-requests": "upstreamMaxRequests",
  "max-waiting": "upstreamMaxWaiting",
  "max-wait": "upstreamMaxWait",
  "connect-timeout": "upstreamConnectTimeout",
  "first-byte-timeout": "upstreamFirstByteTimeout",
  "idle-timeout": "upstreamIdleTimeout",
  timeout: "upstreamTimeout",
  "retry-percent": "upstreamRetryPercent",
  "retries-per-second": "upstreamRetriesPerSecond",
  "health-interval": "upstreamHealthInterval",
  "health-timeout": "upstreamHealthTimeout",
  "health-failures": "upstreamHealthFailures",
  "slow-start": "upstreamSlowStart",
  "eject-after": "upstreamEjectAfter",
  "eject-percent": "upstreamEjectPercent",
  "eject-least": "upstreamEjectLeast",
  "eject-time": "upstreamEjectTime",
  "eject-max-time": "upstreamEjectMaxTime",
  "max-ejected-percent": "upstreamMaxEjectedPercent",
  "affinity-percent": "upstreamAffinityPercent",
  "affinity-tokens": "upstreamAffinityTokens",
  "dns-interval": "upstreamDnsInterval",
} as const satisfies Readonly<Record<string, keyof Settings>>;

type Key = keyof typeof TUNING;
export type UpstreamTuning = Readonly<Record<(typeof TUNING)[Key], number>>;

const GIVEN = z.union([z.number(), z.string()]).optional();
const KEYS = Object.keys(TUNING) as readonly Key[];
/** For an entry's schema. */
export const TUNING_SHAPE = Object.fromEntries(KEYS.map((key) => [key, GIVEN])) as Readonly<Record<Key, typeof GIVEN>>;

export type GivenTuning = { readonly [K in Key]?: number | string | undefined };

/** @param where as it stands in messages. @throws StartupError */
export function tuningOf(given: GivenTuning, settings: UpstreamTuning, where: string): UpstreamTuning {
  const own = KEYS.filter((key) => given[key] !== undefined).map((key) => [TUNING[key], parsed(key, given, where)]);
  const named = KEYS.map((key) => [TUNING[key], settings[TUNING[key]]]);
  const tuning = { ...Object.fromEntries(named), ...Object.fromEntries(own) } as UpstreamTuning;
  if (tuning.upstreamEjectTime > tuning.upstreamEjectMaxTime)
    throw new StartupError(`${where}: eject-max-time is shorter than eject-time`);
  return tuning;
}

function parsed(key: Key, given: GivenTuning, where: string): number {
  try {
    return SETTINGS[TUNING[key]].parse(given[key]);
  } catch (error) {
    if (error instanceof SettingError) throw new StartupError(`${where}.${key}: ${error.message}`);
    throw error;
  }
}

/** Entries of the table of prompts' beginnings. */
const AFFINITY_ENTRIES = 65_536;

export function poolOptions(tuning: UpstreamTuning): PoolOptions {
  return {
    affinityFactor: tuning.upstreamAffinityPercent / 100,
    affinitySlackTokens: tuning.upstreamAffinityTokens,
    affinityEntries: AFFINITY_ENTRIES,
    slowStartMs: tuning.upstreamSlowStart * 1000,
    consecutiveFailures: tuning.upstreamEjectAfter,
    failureShare: tuning.upstreamEjectPercent / 100,
    failureLeast: tuning.upstreamEjectLeast,
    ejectMs: milliseconds(tuning.upstreamEjectTime),
    ejectMostMs: milliseconds(tuning.upstreamEjectMaxTime),
    ejectShare: tuning.upstreamMaxEjectedPercent / 100,
    maxInFlight: tuning.upstreamMaxRequests,
    maxWaiting: tuning.upstreamMaxWaiting,
    maxWaitMs: milliseconds(tuning.upstreamMaxWait),
    retryShare: tuning.upstreamRetryPercent / 100,
    retriesPerSecond: tuning.upstreamRetriesPerSecond,
    timeouts: {
      firstByteMs: milliseconds(tuning.upstreamFirstByteTimeout),
      idleMs: milliseconds(tuning.upstreamIdleTimeout),
      totalMs: milliseconds(tuning.upstreamTimeout),
    },
  };
}

/** `intervalMs` 0: it looks at the start, and not again. */
export function healthOptions(tuning: UpstreamTuning): Pick<HealthOptions, "intervalMs" | "timeoutMs" | "failures"> {
  return {
    intervalMs: tuning.upstreamHealthInterval * 1000,
    timeoutMs: milliseconds(tuning.upstreamHealthTimeout),
    failures: tuning.upstreamHealthFailures,
  };
}

/** Timers take whole ones. */
export function milliseconds(seconds: number): number {
  return Math.max(1, Math.round(seconds * 1000));
}
