/**
 * What every call in serving gets besides the call itself. Made once, by the app.
 */
import type { FairShare } from "#core/generate.ts";
import type { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import type { MakeOutput } from "./_choice.ts";
import type { Models, ServedModel } from "./models.ts";
import type { ServingObserver } from "./observe.ts";

export interface Serving {
  readonly models: Models;
  /** Tokens that all bad words of a request may make. */
  readonly badWordTokens: number;
  /** Makes the pipeline from tokens to text, reasoning and tool calls. */
  readonly makeOutput: MakeOutput;
  /** Compiles what outputs have to look like. */
  readonly grammars: GrammarCompiler;
  /** One observer a model, the same at each call. */
  readonly observerOf: (model: ServedModel) => ServingObserver;
  /** What a tenant may draw on when the engine has more work than it can do. */
  readonly shareOf: (tenant: string) => FairShare;
}
