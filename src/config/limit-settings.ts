/**
 * The rows of the settings table about how much callers may use. Part of settings.ts, which alone reads it.
 */
import { choice, type Setting, string, switched } from "./kinds.ts";

const CALLERS = "Limits of callers";

export const LIMIT_SETTINGS = {
  keyLimits: string(undefined, "json", {
    section: CALLERS,
    doc: 'JSON object of limits for every key, where the key has none of its own: {"requestsPerMinute": 60, "tokensPerDay": 1000000}.',
  }),
  tenantLimits: string(undefined, "json", {
    section: CALLERS,
    doc: 'JSON object from tenant to its limits; "*" is every tenant that is not named: {"*": {"concurrentRequests": 8}}.',
  }),
  modelLimits: string(undefined, "json", {
    section: CALLERS,
    doc: 'JSON object from model (its first name) to limits for all its callers together; "*" is every model that is not named.',
  }),
  modelPrices: string(undefined, "json", {
    section: CALLERS,
    doc: 'JSON object from model to US dollars a million tokens: {"*": {"prompt": 0.5, "completion": 1.5, "cached": 0.1}}; a model without a price costs nothing.',
  }),
  tenantQueueBounds: switched(true, {
    section: CALLERS,
    doc: "A tenant may have as many sequences open as are still free under --max-num-queued-reqs.",
    loosens: "one tenant can fill the queue for all",
  }),
  redisUrl: string(undefined, "url", {
    section: CALLERS,
    doc: "Redis or Valkey (6.2 or newer) in which several servers count together: rediss://user:password@host:port/database.",
    fallbackDoc: "each server counts in its memory",
    secret: true,
  }),
  redisUrlFile: string(undefined, "path", {
    section: CALLERS,
    doc: "File with that URL, readable by its owner alone.",
  }),
  redisCaFile: string(undefined, "path", {
    section: CALLERS,
    doc: "Certificates (PEM) of the authority that signed the Redis server's.",
    fallbackDoc: "the system's authorities",
  }),
  limitsWhenUnavailable: choice("closed", ["closed", "open"], {
    section: CALLERS,
    doc: "While Redis is away: closed refuses with 503, open has each server hold the limits by itself.",
    loosens: "while Redis is away, n servers let n times as much pass",
  }),
} as const satisfies Record<string, Setting<unknown>>;
