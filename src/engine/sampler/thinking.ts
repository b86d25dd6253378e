/**
 * When the reasoning of a sequence has to end, and by which tokens (vLLM: thinking_budget_state.py). It ends once; what
 * opens after that is no reasoning any more, as for the parser of the answer.
 *
 * Invariants: at most `tokens` tokens stand in the reasoning, not counting the run that closes it, unless the grammar
 * does not let that run come; of a run that the model has begun by itself only the rest is due.
 * One instance a sequence; called by sampler.ts.
 */
import type { ThinkingBudget } from "#core/sampling.ts";

export class ThinkingLimit {
  readonly #start: Run;
  readonly #end: Run;
  #phase: "before" | "thinking" | "over";
  #left: number;

  constructor(budget: ThinkingBudget) {
    this.#start = new Run(budget.start);
    this.#end = new Run(budget.end);
    this.#phase = budget.open ? "thinking" : "before";
    this.#left = budget.tokens;
  }

  /** The token that has to come next, if there is one. */
  get due(): number | undefined {
    return this.#phase === "thinking" && this.#left <= 0 ? this.#end.next : undefined;
  }

  /** Takes note of a token that was drawn, or was due. */
  note(token: number): void {
    if (this.#phase === "before" && this.#start.completes(token)) this.#phase = "thinking";
    else if (this.#phase === "thinking") {
      this.#left--;
      if (this.#end.completes(token)) this.#phase = "over";
    }
  }
}

/** A run of tokens, and how much of it stands at the end of what was said. */
class Run {
  readonly #tokens: readonly number[];
  #said: number[] = [];

  constructor(tokens: readonly number[]) {
    this.#tokens = tokens;
  }

  get next(): number | undefined {
    return this.#tokens[this.#said.length];
  }

  /** One more token; whether the run is complete with it. */
  completes(token: number): boolean {
    const said = [...this.#said, token];
    while (said.some((one, at) => one !== this.#tokens[at])) said.shift();
    const complete = said.length === this.#tokens.length;
    this.#said = complete ? [] : said;
    return complete;
  }
}
