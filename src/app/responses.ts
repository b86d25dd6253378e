/**
 * The store of responses, and what may run in the background, as the settings want it. Called by serve.ts and compose.ts.
 */
import type { Log } from "#base/log.ts";
import type { Settings } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import { type DatabaseResponses, openResponseStore } from "#policy/responses/store.ts";
import type { Store } from "#policy/store/store.ts";
import type { ResponsesOptions } from "#serving/responses.ts";
import { StartupError } from "./startup-error.ts";

const DAY_MS = 86_400_000;

/** @throws StartupError */
export async function openResponses(settings: Settings, { db }: Store, log: Log): Promise<DatabaseResponses> {
  try {
    return await openResponseStore({
      db,
      log,
      ofTenant: { responses: settings.maxResponsesOfTenant, bytes: settings.maxResponseBytesOfTenant },
      ofAll: { responses: settings.maxResponses, bytes: settings.maxResponseBytes },
      keepMs: settings.responsesKeepDays * DAY_MS,
    });
  } catch (error) {
    if (error instanceof Fault) throw new StartupError(`stored responses: ${error.detail ?? error.message}`);
    throw error;
  }
}

export function responseOptions(settings: Settings): Pick<ResponsesOptions, "background" | "reasoningEvents"> {
  return {
    background: {
      most: settings.maxBackgroundResponses,
      mostOfTenant: settings.maxBackgroundResponsesOfTenant,
      timeoutMs: settings.backgroundTimeout * 1000,
    },
    reasoningEvents: settings.responsesReasoningEvents,
  };
}
