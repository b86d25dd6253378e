/**
 * What the routes of operations call. Made by the app.
 */
import type { EngineOperations } from "./operations.ts";
import type { Profiles } from "./profiles.ts";
import type { ServerInfo } from "./server-info.ts";
import type { Supervision } from "./supervision.ts";
import type { WeightUpdates } from "./weights.ts";

export interface ServerOperations {
  readonly engine: EngineOperations;
  readonly weights: WeightUpdates;
  readonly profiles: Profiles;
  readonly supervision: Supervision;
  readonly info: ServerInfo;
}
