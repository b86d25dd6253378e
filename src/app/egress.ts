/**
 * The way out as the settings want it: where the records of fetches go, and who fetches the media of requests.
 * Called by serve.ts and run-batch.ts.
 */
import { getFips } from "node:crypto";
import { BeneathError } from "#base/beneath.ts";
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Settings } from "#config/settings.ts";
import { decided, type EgressDecision, type EgressObserver } from "#egress/decision.ts";
import { domainProblem, hostProblem, networkProblem } from "#egress/domains.ts";
import { guardedGet } from "#egress/guarded-fetch.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import { MEDIA_KINDS } from "#egress/media/formats.ts";
import { egressMetrics } from "#egress/metrics.ts";
import type { GuardedGet } from "#policy/tokens/load-keys.ts";
import type { RecordEvent } from "#serving/administration.ts";
import { readSecretFile } from "./secret-file.ts";
import { StartupError } from "./startup-error.ts";

const SERVER = { kind: "server", id: "server" } as const;
const MAX_REDIRECTS = 5;
const MEDIA: ReadonlySet<string> = new Set(MEDIA_KINDS);

export interface EgressRecords extends EgressObserver {
  register(registry: Registry): void;
  /** From then on what a request named and was refused is told there, too. */
  auditTo(event: RecordEvent): void;
}

/** To the log and the metrics, and to the audit log where a request tried to go where it may not. */
export function egressRecords(log: Log): EgressRecords {
  const metrics = egressMetrics();
  let audit: RecordEvent | undefined;
  return {
    register: metrics.register,
    auditTo: (event) => {
      audit = event;
    },
    begin: metrics.begin,
    record: (decision) => {
      metrics.record(decision);
      const { outcome, milliseconds, ...rest } = decision;
      const fields = { ...rest, outcome, milliseconds: Math.round(milliseconds * 10) / 10 };
      if (decision.decision === "refused") log("warn", "egress refused", fields);
      else log(outcome === "ok" ? "info" : "warn", "egress", fields);
      if (isAttempt(decision))
        audit?.("egress.refuse", actorOf(decision), decision.host, told(decision)).catch(() => {});
    },
  };
}

/** Of a request's media, and for where they lead. */
function isAttempt({ kind, decision, rule }: EgressDecision): boolean {
  return MEDIA.has(kind) && decision === "refused" && rule !== undefined && rule < 8;
}

function actorOf({ tenant }: EgressDecision) {
  return tenant === undefined ? SERVER : { ...SERVER, tenant };
}

function told({ kind, rule, reason, requestId }: EgressDecision): object {
  return { kind, rule, reason, request: requestId ?? null };
}

/**
 * @param fips whether only approved algorithms may be used
 * @throws StartupError a host, domain or network that would never match; an algorithm that is not approved
 */
export function checkEgress(settings: Settings, fips = getFips() === 1): void {
  const checks = [
    ["--allowed-media-domains", settings.allowedMediaDomains, domainProblem],
    ["--batch-url-hosts", settings.batchUrlHosts, hostProblem],
    ["--egress-refused-networks", settings.egressRefusedNetworks, networkProblem],
  ] as const;
  for (const [flag, entries, problemOf] of checks)
    for (const entry of entries) {
      const problem = problemOf(entry);
      if (problem !== undefined) throw new StartupError(`${flag} ${problem}`);
    }
  if (settings.mediaPorts.some((port) => !Number.isInteger(port)))
    throw new StartupError("--media-ports takes whole numbers");
  if (settings.mmHasherAlgorithm === "blake3" && fips)
    throw new StartupError("--mm-hasher-algorithm blake3 is no approved algorithm (FIPS): sha256 and sha512 are");
}

/** The keys of issuers, through the guard and on the record. */
export function recordedGet({ egressRefusedNetworks }: Settings, observer: EgressObserver): GuardedGet {
  return (url, options) =>
    decided({ kind: "jwks" }, observer, (trace) =>
      guardedGet(url, { ...options, refusedNetworks: egressRefusedNetworks, trace }),
    );
}

/** Whether any URL of a request may be fetched; data: URLs need no setting. */
export function fetchesMedia({ allowedMediaDomains, allowedLocalMediaPath }: Settings): boolean {
  return allowedMediaDomains.length > 0 || allowedLocalMediaPath !== undefined;
}

/** Who fetches what requests name. @throws StartupError */
export async function openMedia(settings: Settings, observer: EgressObserver): Promise<MediaFetcher> {
  const { allowedLocalMediaPath } = settings;
  const [{ MediaFetcher: Fetcher }, { mediaDigest }, { LocalMedia }, { MediaCache, MediaCacheError }] =
    await Promise.all([
      import("#egress/media/fetcher.ts"),
      import("#egress/media/digest.ts"),
      import("#egress/media/local.ts"),
      import("#egress/media/cache.ts"),
    ]);
  try {
    return new Fetcher({
      ...boundsOf(settings),
      digest: await mediaDigest(settings.mmHasherAlgorithm, getFips() === 1),
      local: allowedLocalMediaPath === undefined ? undefined : await LocalMedia.open(allowedLocalMediaPath),
      cache:
        settings.mediaCacheDir === undefined
          ? undefined
          : await MediaCache.open(cacheOf(settings, settings.mediaCacheDir)),
      observer,
    });
  } catch (error) {
    if (error instanceof BeneathError) throw new StartupError(`--allowed-local-media-path: ${error.message}`);
    if (error instanceof MediaCacheError) throw new StartupError(`--media-cache-dir: ${error.message}`);
    throw error;
  }
}

function boundsOf(settings: Settings) {
  const { mediaConcurrency: atOnce, mediaAllowHttp: plainHttp } = settings;
  const ports = settings.mediaPorts.length > 0 ? settings.mediaPorts : [443, ...(plainHttp ? [80] : [])];
  return {
    domains: settings.allowedMediaDomains,
    plainHttp,
    ports,
    redirects: settings.mediaUrlAllowRedirects ? MAX_REDIRECTS : 0,
    refusedNetworks: settings.egressRefusedNetworks,
    timeoutMs: {
      image: settings.imageFetchTimeout * 1000,
      audio: settings.audioFetchTimeout * 1000,
      video: settings.videoFetchTimeout * 1000,
    },
    maxBytes: { image: settings.maxImageBytes, audio: settings.maxAudioBytes, video: settings.maxVideoBytes },
    turns: {
      atOnce,
      atOncePerTenant: Math.ceil(atOnce / 4),
      waiting: 8 * atOnce,
      waitingPerTenant: 4 * atOnce,
    },
    perRequest: { items: settings.maxRequestMedia, bytes: settings.maxRequestMediaBytes },
    image: {
      pixels: settings.maxImagePixels,
      frames: settings.maxImageFrames,
      aspectRatio: settings.maxImageAspectRatio,
    },
  };
}

function cacheOf(settings: Settings, directory: string) {
  const file = settings.mediaCacheKeyFile;
  return {
    directory,
    maxBytes: settings.mediaCacheBytes,
    maxAgeMs: settings.mediaCacheAge * 1000,
    ...(file === undefined ? {} : { key: readSecretFile(file, "the media cache's key file") }),
  };
}
