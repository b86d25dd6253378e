/**
 * Totals over all lives of the engine process, and the gauges of the present one. Used by supervisor.ts.
 */
import type { BackendStats } from "#core/backend.ts";
import { type EngineGauges, NO_GAUGES } from "./report.ts";

function sum(a: EngineGauges, b: EngineGauges): EngineGauges {
  return {
    ...b,
    steps: a.steps + b.steps,
    promptTokens: a.promptTokens + b.promptTokens,
    generationTokens: a.generationTokens + b.generationTokens,
    preemptions: a.preemptions + b.preemptions,
    prefixQueries: a.prefixQueries + b.prefixQueries,
    prefixHits: a.prefixHits + b.prefixHits,
    drafts: a.drafts + b.drafts,
    draftTokens: a.draftTokens + b.draftTokens,
    acceptedTokens: addEach(a.acceptedTokens, b.acceptedTokens),
  };
}

function addEach(a: readonly number[], b: readonly number[]): readonly number[] {
  return Array.from({ length: Math.max(a.length, b.length) }, (_, at) => (a[at] ?? 0) + (b[at] ?? 0));
}

export class Totals {
  #past = NO_GAUGES;
  #now = NO_GAUGES;
  #restarts = 0;

  /** @returns what is new since the last time */
  update(gauges: EngineGauges): { readonly steps: number; readonly promptTokens: number } {
    const steps = gauges.steps - this.#now.steps;
    const promptTokens = gauges.promptTokens - this.#now.promptTokens;
    this.#now = gauges;
    return { steps, promptTokens };
  }

  childEnded(): void {
    this.#past = { ...sum(this.#past, this.#now), running: 0, waiting: 0, kvUsage: 0 };
    this.#now = NO_GAUGES;
  }

  restarted(): void {
    this.#restarts++;
  }

  /** @param open sequences open in the parent: what is not running waits, also on its way to the engine */
  stats(open: number): BackendStats {
    const all = sum(this.#past, this.#now);
    const running = Math.min(this.#now.running, open);
    return { ...all, running, waiting: open - running, restarts: this.#restarts };
  }
}

/** Of several engines: sums, and the mean of their KV usage. */
export function sumStats(all: readonly BackendStats[]): BackendStats {
  const add = (pick: (stats: BackendStats) => number): number => all.reduce((total, stats) => total + pick(stats), 0);
  return {
    running: add((stats) => stats.running),
    waiting: add((stats) => stats.waiting),
    kvUsage: add((stats) => stats.kvUsage) / Math.max(1, all.length),
    steps: add((stats) => stats.steps),
    promptTokens: add((stats) => stats.promptTokens),
    generationTokens: add((stats) => stats.generationTokens),
    preemptions: add((stats) => stats.preemptions),
    prefixQueries: add((stats) => stats.prefixQueries),
    prefixHits: add((stats) => stats.prefixHits),
    drafts: add((stats) => stats.drafts),
    draftTokens: add((stats) => stats.draftTokens),
    acceptedTokens: all.reduce<readonly number[]>((sum, stats) => addEach(sum, stats.acceptedTokens), []),
    restarts: add((stats) => stats.restarts),
  };
}
