/**
 * How the server is configured, for operators, without what is secret or tells where things lie.
 *
 * The app chooses what is told (app/operations.ts); here it is joined with what the engines do now.
 */
import type { EngineStatus } from "#core/backend.ts";
import type { Operations, SleepState } from "#core/operations.ts";
import type { Grant } from "#core/principal.ts";

export type Told = Readonly<Record<string, string | number | boolean | null>>;

export interface ServerInfoOptions {
  readonly settings: Told;
  readonly system: Told;
  readonly operations: Pick<Operations, "isPaused" | "sleepState">;
  readonly engines: () => readonly EngineStatus[];
}

export interface ServerFacts {
  readonly settings: Told;
  readonly system: Told;
  readonly engines: readonly { readonly engine: number; readonly state: string; readonly restarts: number }[];
  readonly paused: boolean;
  readonly sleep: SleepState;
}

export class ServerInfo {
  readonly #options: ServerInfoOptions;

  constructor(options: ServerInfoOptions) {
    this.#options = options;
  }

  tell(_grant: Grant<"ops">): ServerFacts {
    const { settings, system, operations, engines } = this.#options;
    return {
      settings,
      system,
      engines: engines().map(({ engine, state, stats: { restarts } }) => ({ engine, state, restarts })),
      paused: operations.isPaused(),
      sleep: operations.sleepState(),
    };
  }
}
