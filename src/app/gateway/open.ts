/**
 * Models that upstream servers answer, as part of a server: what is served, and the relay that passes calls on.
 *
 * Called by compose.ts (beside an engine here) and gateway/compose.ts (alone).
 */

import { StartupError } from "#app/startup-error.ts";
import { type OpenedModel, openUpstreams, type Upstreams } from "#app/upstreams.ts";
import type { Log } from "#base/log.ts";
import type { Registry } from "#base/metrics.ts";
import type { Redactor } from "#base/redact.ts";
import type { Settings } from "#config/settings.ts";
import type { MediaFetcher } from "#egress/media/fetcher.ts";
import type { Relay } from "#http/relay.ts";
import type { Services } from "#routes/index.ts";
import type { RecordEvent } from "#serving/administration.ts";
import type { Serving } from "#serving/context.ts";
import type { ServedModel } from "#serving/models.ts";
import type { StoredResponses } from "#serving/stored-responses.ts";
import { type AdaptedModel, UpstreamAdapters } from "#serving/upstreams/adapters.ts";
import { Forwarding, type ModelUpstreams } from "#serving/upstreams/forwarding.ts";
import { Operate } from "#serving/upstreams/operate.ts";
import type { UpstreamPool } from "#serving/upstreams/pool.ts";
import { RelayedResponses } from "#serving/upstreams/responses.ts";
import { relayedModel } from "#serving/upstreams/served.ts";
import { neverPassed } from "#wire/relay/judge.ts";
import { gatewayRelay } from "./relay.ts";

export interface GatewayParts {
  readonly settings: Settings;
  readonly media: Pick<MediaFetcher, "fetchAll"> | undefined;
  /** Of all gateways of a store (keys.ts). */
  readonly saltKey: Uint8Array;
  readonly audit: { readonly event: RecordEvent };
  readonly redact: Pick<Redactor, "also">;
  readonly log: Log;
}

export interface Gateway {
  readonly served: readonly ServedModel[];
  readonly servers: number;
  /** @param alone nothing is computed in this process */
  relay(serving: Serving, stored: StoredResponses, alone: boolean): Relay<Services>;
  /** Whether a server of any model takes calls. */
  ready(): boolean;
  /** Whether the first server says that it is well, asked now. Never throws. */
  answers(): Promise<boolean>;
  close(graceMs: number): Promise<void>;
}

const OPERATION_MS = 280_000;

/** @returns undefined: the settings name no upstream. @throws StartupError */
export async function openGateway(parts: GatewayParts, registry: Registry): Promise<Gateway | undefined> {
  const upstreams = await openUpstreams(parts.settings, registry, { log: parts.log, hide: parts.redact.also });
  if (upstreams === undefined) return undefined;
  try {
    await upstreams.start();
    return gatewayOf(parts, upstreams);
  } catch (error) {
    await upstreams.destroy();
    throw error;
  }
}

function gatewayOf({ settings, media, saltKey, audit, log }: GatewayParts, upstreams: Upstreams): Gateway {
  if (media === undefined) throw new Error("a gateway fetches media");
  const passed = passedFields(settings);
  const answering = new Map<ServedModel, ModelUpstreams>();
  const adapted: AdaptedModel[] = [];
  for (const model of upstreams.models) {
    const { names, upstreamName } = namesOf(model);
    const { pool } = model;
    const contextLength = () => model.contextLength();
    const served = relayedModel(names, { contextLength, ready: () => pool.available() });
    answering.set(served, { pool, contextLength, ...(upstreamName === undefined ? {} : { name: upstreamName }) });
    adapted.push({ base: served, pool });
  }
  const pools = () => upstreams.models.map(({ pool }) => pool);
  return {
    served: [...answering.keys()],
    servers: upstreams.models.reduce((sum, { pool }) => sum + pool.members().size, 0),
    ready: () => pools().some((pool) => pool.available()),
    answers: () => answers(pools()[0]),
    relay: (serving, stored, alone) => {
      const realtime = { serving, upstreamsOf: (model: ServedModel) => upstreamsOf(answering, model) };
      const forwarding = new Forwarding({ ...realtime, media, saltKey, passed });
      const operate = new Operate({ pools, timeoutMs: OPERATION_MS });
      const adapters = new UpstreamAdapters({
        models: serving.models,
        adapted,
        operate,
        record: audit.event,
        digestRequired: settings.requireLoraDigest,
        log,
      });
      const responses = new RelayedResponses({ serving, forwarding, stored });
      return gatewayRelay({ forwarding, responses, realtime, operate, adapters, scrape: upstreams.scrape, alone });
    },
    close: async (graceMs) => {
      const late = setTimeout(() => void upstreams.destroy(), graceMs);
      late.unref();
      await upstreams.close();
      clearTimeout(late);
    },
  };
}

/** @throws StartupError a field that no client may set */
function passedFields({ upstreamPassFields }: Settings): ReadonlySet<string> {
  const passed = new Set(upstreamPassFields);
  const never = neverPassed(passed);
  if (never !== undefined) throw new StartupError(`--upstream-pass-fields: ${never} is never passed on`);
  return passed;
}

/** An adapter is asked for by its own name, whatever the model behind it is called. */
function upstreamsOf(
  answering: ReadonlyMap<ServedModel, ModelUpstreams>,
  model: ServedModel,
): ModelUpstreams | undefined {
  const base = model.lora?.base;
  const upstreams = answering.get(base ?? model);
  return base === undefined || upstreams === undefined ? upstreams : { ...upstreams, name: model.names[0] };
}

const PROBE_MS = 2000;

async function answers(pool: UpstreamPool | undefined): Promise<boolean> {
  const [member] = pool?.members().values() ?? [];
  if (member === undefined) return false;
  const timeouts = { firstByteMs: PROBE_MS, idleMs: PROBE_MS, totalMs: PROBE_MS };
  try {
    const reply = await member.link.send({ method: "GET", target: "/health", headers: [], body: [] }, { timeouts });
    reply.source.cancel();
    return reply.status === 200;
  } catch {
    return false;
  }
}

/** @throws StartupError nobody has said a name */
function namesOf({ name, aliases, upstreamModel, served }: OpenedModel): {
  readonly names: readonly [string, ...string[]];
  readonly upstreamName: string | undefined;
} {
  // One name that both sides use needs no other in its place.
  if (name !== undefined)
    return { names: [name, ...aliases], upstreamName: upstreamModel ?? (aliases.length > 0 ? name : undefined) };
  const [first, ...rest] = served();
  if (first === undefined)
    throw new StartupError(
      "no upstream has said what it serves: they are away, or take no calls. --served-model-name says it without them",
    );
  return { names: [first, ...rest], upstreamName: upstreamModel };
}
