/**
 * A model that upstream servers answer for, as the rest of serving sees it: a name that principals may or may not use,
 * and facts for /v1/models. It computes nothing here: calls for it are relayed before a handler sees them.
 */
import { type Backend, NO_STATS } from "#core/backend.ts";
import { Fault } from "#core/fault.ts";
import type { Tokenizer } from "#core/model.ts";
import { modelTemplate } from "#prompt/template.ts";
import type { ServedModel } from "#serving/models.ts";

export interface RelayedFacts {
  /** Tokens a sequence may hold, as the upstreams say; 0: none has said it yet. */
  readonly contextLength: () => number;
  /** Whether any of its upstreams takes calls. */
  readonly ready: () => boolean;
}

function elsewhere(): never {
  throw new Fault("not_implemented", "This server has no engine of its own for that: the model runs on others.");
}

const TOKENIZER: Tokenizer = {
  vocabularySize: 0,
  bos: undefined,
  eos: undefined,
  addsBos: false,
  brackets: { before: [], after: [], between: [] },
  endOfTurn: new Set(),
  specials: [],
  maxPieceBytes: 0,
  encodeText: async () => elsewhere(),
  encodeTemplate: async () => elsewhere(),
  piece: elsewhere,
  spelling: elsewhere,
};

export function relayedModel(names: readonly [string, ...string[]], facts: RelayedFacts): ServedModel {
  const createdAt = Math.floor(Date.now() / 1000);
  const backend: Backend = {
    model: {
      architecture: "upstream",
      get contextLength() {
        return facts.contextLength();
      },
      trainedContext: 0,
      vocabularySize: 0,
      parameters: 0,
      createdAt,
    },
    generate: elsewhere,
    pool: async () => elsewhere(),
    state: () => (facts.ready() ? "ready" : "starting"),
    stats: () => NO_STATS,
    close: async () => {},
  };
  return {
    names,
    backend,
    tokenizer: TOKENIZER,
    template: modelTemplate(undefined),
    defaults: {},
    parsers: { reasoning: undefined, tools: undefined, holdCalls: false },
  };
}
