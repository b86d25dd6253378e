/**
 * What crosses the process border for pooling: a request on its way in, a finished sequence on its way out.
 */
import type { FairShare } from "#core/generate.ts";
import type { PoolingInfo, PoolOutput } from "#core/pool.ts";
import type { FinishReport } from "#engine/report.ts";
import type { Finishing } from "./finish.ts";

export interface PoolSubmission extends Finishing {
  /** Unique among the open requests, of both kinds. */
  readonly request: number;
  readonly inputs: readonly Int32Array[];
  readonly priority: number;
  readonly share?: FairShare;
  /** The model's; the engine process knows none of its own. */
  readonly info: PoolingInfo;
}

/** `sample` is the input's index in the request, `prefill` the time of the batch it was in. */
export interface PooledReport extends FinishReport {
  readonly output: PoolOutput;
}
