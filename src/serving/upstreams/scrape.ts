/**
 * What the servers behind this one say of themselves for Prometheus, as one text: each is asked by the client that calls
 * go by, and its samples get the model's and its own name here.
 *
 * Invariants (Wall: T126): servers that are not well are not asked; a server's exposition is taken whole or not at all, and
 * what was wrong is counted by server; all are asked at once, bounded in bytes each and together, lines and time; one
 * collection at a time, which everybody who asks meanwhile or a moment later gets: nobody makes work at the servers
 * faster than that. Made by app's upstreams; called by its relay.
 */
import type { Log } from "#base/log.ts";
import { Counter, type Registry } from "#base/metrics.ts";
import type { UpstreamRequest } from "#core/relay.ts";
import type { UpstreamReply } from "#egress/upstream/exchange.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import { ExpositionError } from "#wire/prometheus/error.ts";
import type { Family } from "#wire/prometheus/family.ts";
import { printFamilies } from "#wire/prometheus/merge.ts";
import { ExpositionReader } from "#wire/prometheus/read.ts";
import type { PoolMember, UpstreamPool } from "./pool.ts";

export const SCRAPE_OUTCOMES = ["ok", "unreachable", "timeout", "refused", "too_large", "malformed", "failed"] as const;
export type ScrapeOutcome = (typeof SCRAPE_OUTCOMES)[number];

export interface ScrapeOptions {
  /** By the names of models here. */
  readonly pools: () => ReadonlyMap<string, Pick<UpstreamPool, "members" | "states">>;
  readonly registry: Registry;
  readonly log: Log;
  readonly bounds?: Partial<ScrapeBounds>;
  /** Milliseconds. */
  readonly now?: () => number;
}

export interface ScrapeBounds {
  /** Of one server's answer. */
  readonly bytes: number;
  readonly lines: number;
  /** Of all servers' answers. */
  readonly allBytes: number;
  readonly timeoutMs: number;
  /** For so long a collection is good for the next who asks. */
  readonly freshMs: number;
}

/** Prometheus gives up after ten seconds unless told otherwise. */
const BOUNDS: ScrapeBounds = {
  bytes: 4 << 20,
  lines: 50_000,
  allBytes: 32 << 20,
  timeoutMs: 5000,
  freshMs: 1000,
};
const REQUEST: UpstreamRequest = {
  method: "GET",
  target: "/metrics",
  headers: ["accept", "text/plain;version=0.0.4"],
  body: [],
};
const OPEN_METRICS = "application/openmetrics-text";

interface Source {
  readonly model: string;
  readonly member: PoolMember;
}

export class UpstreamScrape {
  readonly #options: ScrapeOptions;
  readonly #bounds: ScrapeBounds;
  readonly #now: () => number;
  readonly #count: Counter;
  /** Those that failed last time, told once. */
  #failing: ReadonlySet<string> = new Set();
  #last: { readonly text: Promise<string>; freshUntil: number } | undefined;

  constructor(options: ScrapeOptions) {
    this.#options = options;
    this.#bounds = { ...BOUNDS, ...options.bounds };
    this.#now = options.now ?? (() => performance.now());
    this.#count = scrapeCounter(options.registry);
  }

  /** Prometheus' text format 0.0.4. Never rejects for a server's sake. */
  text(): Promise<string> {
    if (this.#last !== undefined && this.#now() < this.#last.freshUntil) return this.#last.text;
    const last = { text: this.#collect(), freshUntil: Number.POSITIVE_INFINITY };
    this.#last = last;
    const over = (): void => {
      last.freshUntil = this.#now() + this.#bounds.freshMs;
    };
    last.text.then(over, over);
    return last.text;
  }

  async #collect(): Promise<string> {
    const budget = { bytes: this.#bounds.allBytes };
    const failing = new Set<string>();
    const all = await Promise.all(
      this.#sources().map(async ({ model, member }) => {
        const { label } = member;
        const reader = (open: boolean) => new ExpositionReader({ model, upstream: label }, open, this.#bounds);
        const found = await this.#ask(member, reader, budget);
        const outcome = "outcome" in found ? found.outcome : "ok";
        this.#count.inc({ model_name: model, upstream: label, outcome });
        if (!("outcome" in found)) return found;
        const key = `${model} ${label}`;
        failing.add(key);
        if (!this.#failing.has(key))
          this.#options.log("warn", "an upstream's metrics cannot be had", { model, upstream: label, ...found });
        return [];
      }),
    );
    this.#failing = failing;
    return printFamilies(all);
  }

  #sources(): readonly Source[] {
    return [...this.#options.pools()].flatMap(([model, pool]) => {
      const well = pool.states().filter(({ state }) => state !== "unhealthy" && state !== "leaving");
      return well.flatMap(({ id }) => {
        const member = pool.members().get(id);
        return member === undefined ? [] : [{ model, member }];
      });
    });
  }

  async #ask(
    { link }: PoolMember,
    reader: (open: boolean) => ExpositionReader,
    budget: { bytes: number },
  ): Promise<readonly Family[] | Failure> {
    const { bytes, timeoutMs } = this.#bounds;
    const timeouts = { firstByteMs: timeoutMs, idleMs: timeoutMs, totalMs: timeoutMs };
    try {
      const reply = await link.send(REQUEST, { timeouts, maxBytes: bytes });
      const [type = ""] = (reply.headers["content-type"] ?? "").split(";");
      const open = type.trim().toLowerCase() === OPEN_METRICS;
      if (reply.status === 200 && (open || type.trim() === "text/plain"))
        return await readAll(reply, reader(open), budget);
      reply.source.cancel();
      return { outcome: reply.status === 200 ? "malformed" : "refused", detail: `status ${reply.status}` };
    } catch (error) {
      return failureOf(error);
    }
  }
}

interface Failure {
  readonly outcome: ScrapeOutcome;
  readonly detail?: string;
  readonly line?: number;
}

/** Rejects with what ended it. */
function readAll(
  { source }: UpstreamReply,
  reader: ExpositionReader,
  budget: { bytes: number },
): Promise<readonly Family[]> {
  return new Promise((resolve, reject) => {
    const guarded = (run: () => void): void => {
      try {
        run();
      } catch (error) {
        source.cancel();
        reject(error);
      }
    };
    source.pipe({
      write: (chunk) => {
        guarded(() => {
          budget.bytes -= chunk.byteLength;
          if (budget.bytes < 0) throw new UpstreamFault("too_large", { sent: true, detail: "of all together" });
          reader.take(chunk);
        });
        return true;
      },
      end: () => guarded(() => resolve(reader.end())),
      fail: reject,
    });
  });
}

function failureOf(error: unknown): Failure {
  if (error instanceof ExpositionError)
    return { outcome: "malformed", detail: error.message, ...(error.line === undefined ? {} : { line: error.line }) };
  if (!(error instanceof UpstreamFault)) throw error;
  const { reason, detail } = error;
  const told = detail === undefined ? {} : { detail };
  if (reason === "connect") return { outcome: "unreachable", ...told };
  return { outcome: reason === "timeout" || reason === "too_large" ? reason : "failed", ...told };
}

export function scrapeCounter(registry: Registry): Counter {
  return new Counter({
    name: "castellan:upstream_scrapes_total",
    help: "Times that an upstream's own metrics were asked for, by what came of it.",
    labelNames: ["model_name", "upstream", "outcome"],
    registers: [registry],
  });
}
