/**
 * Totals over all lives of the engine process, and the gauges of the present one. Used by supervisor.ts.
 */
import type { BackendStats } from "#core/backend.ts";
import type { EngineGauges } from "./report.ts";

const NOTHING: EngineGauges = {
  running: 0,
  waiting: 0,
  kvUsage: 0,
  steps: 0,
  promptTokens: 0,
  generationTokens: 0,
  preemptions: 0,
  prefixQueries: 0,
  prefixHits: 0,
  drafts: 0,
  draftTokens: 0,
  acceptedTokens: [],
};

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
    acceptedTokens: Array.from(
      { length: Math.max(a.acceptedTokens.length, b.acceptedTokens.length) },
      (_, at) => (a.acceptedTokens[at] ?? 0) + (b.acceptedTokens[at] ?? 0),
    ),
  };
}

export class Totals {
  #past = NOTHING;
  #now = NOTHING;
  #restarts = 0;

  update(gauges: EngineGauges): void {
    this.#now = gauges;
  }

  childEnded(): void {
    this.#past = { ...sum(this.#past, this.#now), running: 0, waiting: 0, kvUsage: 0 };
    this.#now = NOTHING;
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
