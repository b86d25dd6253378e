/**
 * A timeline of steps: recorded in the engine process into a ring of fixed size, printed as a Chrome trace by the
 * HTTP process. Engines are told apart by `pid`; their clocks are brought together by the time origins.
 * Written by engine.ts, started and taken by operator.ts, printed by fleet-operations.ts.
 */
import type { StepTrace, TraceEvent } from "#core/trace.ts";

export const DEFAULT_STEPS = 16_384;
export const MAX_STEPS = 65_536;
/**
 * Begin of the step, end of schedule, of forward, of settle (seconds of the process's monotonic clock); sequences;
 * tokens computed; prompt tokens found in the prefix cache by the sequences admitted in this step.
 */
const FIELDS = 7;

/** What crosses the process border. */
export interface Timeline {
  /** Milliseconds since 1970 at which the process's clock began. */
  readonly origin: number;
  /** FIELDS numbers a step, oldest first. */
  readonly steps: Float64Array;
}

export class StepRecorder {
  readonly #ring: Float64Array;
  readonly #step = { from: 0, planned: 0, computed: 0, tokens: 0 };
  #hits = 0;
  #count = 0;

  /** @param capacity steps, 1…MAX_STEPS */
  constructor(capacity: number) {
    this.#ring = new Float64Array(Math.min(MAX_STEPS, Math.max(1, capacity)) * FIELDS);
  }

  /** A step begins. @param hits prompt tokens found in the prefix cache so far */
  begin(hits: number): void {
    this.#step.from = seconds();
    this.#hits = hits;
  }

  planned(): void {
    this.#step.planned = seconds();
  }

  /** @param tokens of the batch */
  computed(tokens: number): void {
    this.#step.computed = seconds();
    this.#step.tokens = tokens;
  }

  settled(sequences: number, hits: number): void {
    const { from, planned, computed, tokens } = this.#step;
    const at = (this.#count++ * FIELDS) % this.#ring.length;
    this.#ring.set([from, planned, computed, seconds(), sequences, tokens, hits - this.#hits], at);
  }

  timeline(): Timeline {
    const size = this.#ring.length;
    const end = this.#count * FIELDS;
    const steps = new Float64Array(Math.min(end, size));
    const oldest = end <= size ? 0 : end % size;
    steps.set(this.#ring.subarray(oldest, oldest + steps.length));
    if (oldest > 0) steps.set(this.#ring.subarray(0, oldest), size - oldest);
    return { origin: performance.timeOrigin, steps };
  }
}

/** @param timelines by engine number */
export function printTrace(timelines: readonly (readonly [engine: number, timeline: Timeline])[]): StepTrace {
  const traceEvents = timelines.flatMap(([engine, timeline]) => [nameOf(engine), ...spansOf(engine, timeline)]);
  return { traceEvents, displayTimeUnit: "ms" };
}

function nameOf(engine: number): TraceEvent {
  return { name: "process_name", ph: "M", pid: engine, tid: 0, args: { name: `engine ${engine}` } };
}

function spansOf(engine: number, { origin, steps }: Timeline): TraceEvent[] {
  const events: TraceEvent[] = [];
  for (let at = 0; at + FIELDS <= steps.length; at += FIELDS) {
    const [from, planned, computed, settled, sequences, tokens, cached] = steps.subarray(at, at + FIELDS) as unknown as [
      number, number, number, number, number, number, number,
    ]; // biome-ignore format: one a field
    const span = (name: string, start: number, end: number): TraceEvent => ({
      name,
      ph: "X",
      pid: engine,
      tid: 0,
      ts: Math.round(origin * 1000 + start * 1e6),
      dur: Math.max(0, Math.round((end - start) * 1e6)),
      args: { sequences, tokens, cached },
    });
    events.push(span("schedule", from, planned), span("forward", planned, computed), span("settle", computed, settled));
  }
  return events;
}

function seconds(): number {
  return performance.now() / 1000;
}
