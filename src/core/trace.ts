/**
 * A timeline of steps in Chrome's trace event format (chrome://tracing, Perfetto): printed as JSON it is such a file.
 */
export interface TraceEvent {
  readonly name: string;
  /** X: a span. M: a name for a process. */
  readonly ph: "X" | "M";
  readonly pid: number;
  readonly tid: number;
  /** Microseconds. */
  readonly ts?: number;
  readonly dur?: number;
  readonly args: Readonly<Record<string, number | string>>;
}

export interface StepTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
}
