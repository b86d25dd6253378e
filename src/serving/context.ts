/**
 * What every call in serving gets besides the call itself. Made once, by the app.
 */
import type { Models, ServedModel } from "./models.ts";
import type { ServingObserver } from "./observe.ts";

export interface Serving {
  readonly models: Models;
  /** Tokens that all bad words of a request may make. */
  readonly badWordTokens: number;
  /** One observer a model, the same at each call. */
  readonly observerOf: (model: ServedModel) => ServingObserver;
}
