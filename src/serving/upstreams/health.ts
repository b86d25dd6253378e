/**
 * Asks upstreams now and then how they are: /health, what they serve (models and adapters), whether they sleep.
 *
 * Invariants: one look at an upstream at a time, each bounded in time and bytes, at intervals that wander so that many
 * gateways do not ask at once; an upstream that answers requests is not taken out for a look that failed, as a busy one
 * may be slow to say so. Callers: app, one a pool.
 */
import { type JsonValue, parseJson } from "#base/json.ts";
import type { Log } from "#base/log.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import type { PoolMember, UpstreamPool } from "./pool.ts";

export interface HealthOptions {
  readonly pool: UpstreamPool;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Looks that fail one after the other before an upstream is out. */
  readonly failures: number;
  readonly log: Log;
  /** 0…1. */
  readonly random?: () => number;
}

const MAX_BYTES = 1 << 20;
const WANDER = 0.25;
/** Everything but /health is asked for at every so many looks. */
const EVERY = 4;
const MAX_NAMES = 1024;
/** No model has it: it stands for none. */
const MAX_WINDOW = 2 ** 32;

interface Watched {
  /** Signs of life up to the last look. */
  answered: number;
  failures: number;
  looks: number;
  healthy: boolean;
  wasWell: boolean;
  /** Whether it tells that it sleeps: vLLM does in development mode only. */
  tellsSleep: boolean;
  /** Served names, adapters left out. */
  models: readonly string[];
  /** Tokens that a sequence may hold; 0: it has not said. */
  window: number;
}

export class HealthWatch {
  readonly #options: HealthOptions;
  readonly #random: () => number;
  readonly #watched = new Map<number, Watched>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#random = options.random ?? Math.random;
  }

  /** Looks at once, then now and then. Resolves after the first look at all. */
  async start(): Promise<void> {
    await this.look();
    this.#again();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** What the upstreams say that they serve, adapters left out. */
  models(): readonly string[] {
    return [...new Set([...this.#watched.values()].flatMap(({ models }) => models))];
  }

  /** Tokens that a sequence may hold at any of them; 0: none has said. Asked with every call. */
  contextLength(): number {
    let least = 0;
    for (const { window } of this.#watched.values()) if (window > 0 && (least === 0 || window < least)) least = window;
    return least;
  }

  /** At all of them, once. */
  async look(): Promise<void> {
    const members = this.#options.pool.members();
    for (const id of this.#watched.keys()) if (!members.has(id)) this.#watched.delete(id);
    await Promise.all([...members].map(([id, member]) => this.#lookAt(id, member)));
  }

  #again(): void {
    if (this.#stopped) return;
    const wait = this.#options.intervalMs * (1 - WANDER + 2 * WANDER * this.#random());
    this.#timer = setTimeout(() => void this.look().then(() => this.#again()), wait);
    this.#timer.unref();
  }

  async #lookAt(id: number, member: PoolMember): Promise<void> {
    const watched = this.#watched.get(id) ?? {
      answered: 0,
      failures: 0,
      looks: 0,
      healthy: true,
      wasWell: false,
      tellsSleep: true,
      models: [],
      window: 0,
    };
    this.#watched.set(id, watched);
    const status = await this.#ask(member, "/health").then(
      ({ status }) => status,
      () => 0,
    );
    this.#judge(id, member, watched, status > 0 && status < 500);
    if (!watched.healthy || watched.looks++ % EVERY !== 0) return;
    await Promise.all([this.#askModels(id, member, watched), this.#askSleep(id, member, watched)]);
  }

  #judge(id: number, { label }: PoolMember, watched: Watched, well: boolean): void {
    const { pool, log } = this.#options;
    const state = pool.states().find((each) => each.id === id);
    // Requests that are answered say more than a look that is not.
    const answering = state !== undefined && state.answered > watched.answered;
    watched.answered = state?.answered ?? 0;
    watched.failures = well || answering ? 0 : watched.failures + 1;
    watched.wasWell ||= well || answering;
    // One that never was well is believed at its first word.
    const healthy =
      watched.failures === 0 || (watched.healthy && watched.wasWell && watched.failures < this.#options.failures);
    if (healthy === watched.healthy) return;
    watched.healthy = healthy;
    pool.setHealthy(id, healthy);
    log(healthy ? "info" : "warn", healthy ? "an upstream is back" : "an upstream is not well", { upstream: label });
  }

  async #askModels(id: number, member: PoolMember, watched: Watched): Promise<void> {
    const changes = this.#options.pool.adapterChanges(id);
    const cards = await this.#json(member, "/v1/models").then(cardsOf, () => undefined);
    if (cards === undefined) return;
    const models = cards.filter(({ adapter }) => !adapter);
    watched.models = models.map(({ id: name }) => name);
    watched.window =
      Math.min(...models.map(({ window }) => window).filter((window) => window > 0), MAX_WINDOW) % MAX_WINDOW;
    this.#options.pool.setAdapters(
      id,
      cards.filter(({ adapter }) => adapter).map(({ id: name }) => name),
      changes,
    );
  }

  async #askSleep(id: number, member: PoolMember, watched: Watched): Promise<void> {
    if (!watched.tellsSleep) return;
    const told = await this.#json(member, "/is_sleeping").catch(() => undefined);
    const asleep = isObject(told) ? told["is_sleeping"] : undefined;
    if (typeof asleep === "boolean") this.#options.pool.setAsleep(id, asleep);
    else watched.tellsSleep = false;
  }

  async #json(member: PoolMember, target: string): Promise<JsonValue> {
    const { status, body } = await this.#ask(member, target);
    if (status !== 200) throw new Error("no answer");
    return parseJson(body);
  }

  async #ask({ link }: PoolMember, target: string): Promise<{ readonly status: number; readonly body: Buffer }> {
    const { timeoutMs } = this.#options;
    const request: UpstreamRequest = { method: "GET", target, headers: ["accept", "application/json"], body: [] };
    const timeouts = { firstByteMs: timeoutMs, idleMs: timeoutMs, totalMs: timeoutMs };
    const { status, source } = await link.send(request, { timeouts, maxBytes: MAX_BYTES });
    const chunks: Buffer[] = [];
    await new Promise<void>((end, fail) =>
      source.pipe({ write: (chunk) => chunks.push(Buffer.from(chunk)) > 0, end, fail }),
    );
    return { status, body: Buffer.concat(chunks) };
  }
}

interface Card {
  readonly id: string;
  readonly adapter: boolean;
  /** max_model_len; 0: it is not there. */
  readonly window: number;
}

function isObject(value: JsonValue | undefined): value is { readonly [name: string]: JsonValue } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** vLLM: an adapter's card names its parent. */
function cardsOf(answer: JsonValue): readonly Card[] {
  const data = isObject(answer) ? answer["data"] : undefined;
  if (!Array.isArray(data)) return [];
  return data.slice(0, MAX_NAMES).flatMap((card: JsonValue) => {
    const [id, parent] = isObject(card) ? [card["id"], card["parent"]] : [undefined, undefined];
    const length = isObject(card) ? card["max_model_len"] : undefined;
    const window = typeof length === "number" && Number.isSafeInteger(length) && length > 0 ? length : 0;
    return typeof id === "string" && id.length <= 256 ? [{ id, adapter: typeof parent === "string", window }] : [];
  });
}
