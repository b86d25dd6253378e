/**
 * What every call in serving gets besides the call itself. Made once, by the app.
 */
import type { FairShare } from "#core/generate.ts";
import type { Principal } from "#core/principal.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { GrammarCompiler } from "#prompt/grammar/compiler.ts";
import type { MakeOutput } from "./_choice.ts";
import type { Models, ServedModel } from "./models.ts";
import type { ServingObserver } from "./observe.ts";

export interface Serving {
  readonly models: Models;
  /** How much a request may ask for, where a principal has no caps of its own. */
  readonly caps: RequestCaps;
  /** Whether a `priority` other than 0 is taken (--scheduling-policy priority). */
  readonly priorities: boolean;
  /** Makes the pipeline from tokens to text, reasoning and tool calls. */
  readonly makeOutput: MakeOutput;
  /** Compiles what outputs have to look like. */
  readonly grammars: GrammarCompiler;
  /** One observer a model, the same at each call. */
  readonly observerOf: (model: ServedModel) => ServingObserver;
  /** What a tenant may draw on when the engine has more work than it can do. */
  readonly shareOf: (principal: Pick<Principal, "tenant" | "behind">) => FairShare;
}
