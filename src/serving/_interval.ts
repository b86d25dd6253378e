/**
 * A choice whose deltas come in larger pieces (`stream_interval`): the first token's at once, then those of so many
 * tokens together, the last ones with the end. What comes is the same; only how it is cut differs. Called by _choice.ts.
 */
import type { ChoiceEvent, DeltaTokens } from "#core/calls.ts";
import type { ChoiceOutput } from "./_generate.ts";

/** @param interval tokens, ≥ 1 */
export function atIntervals(inner: ChoiceOutput, interval: number): ChoiceOutput {
  let held: ChoiceEvent[] = [];
  let sent = 0;
  const flush = (): ChoiceEvent[] => {
    const events = held;
    held = [];
    sent = inner.tokens;
    return events;
  };
  const hold = (events: readonly ChoiceEvent[]): void => {
    for (const event of events) {
      const joined = joinedWith(held.at(-1), event);
      if (joined === undefined) held.push(event);
      else held[held.length - 1] = joined;
    }
  };
  return {
    push: (tokens, logprobs) => {
      hold(inner.push(tokens, logprobs));
      return inner.ended || sent === 0 || inner.tokens - sent >= interval ? flush() : [];
    },
    end: (reason, stopToken) => {
      hold(inner.end(reason, stopToken));
      return flush();
    },
    get ended() {
      return inner.ended;
    },
    get tokens() {
      return inner.tokens;
    },
    get reasoningTokens() {
      return inner.reasoningTokens;
    },
  };
}

/** Two events as one, where the second goes on with the first. */
function joinedWith(first: ChoiceEvent | undefined, second: ChoiceEvent): ChoiceEvent | undefined {
  if (first === undefined) return undefined;
  if (first.type === "tool-call" && second.type === "tool-call") {
    if (first.index !== second.index || second.id !== undefined || second.name !== undefined) return undefined;
    return { ...first, arguments: first.arguments + second.arguments, ...joinedTokens(first, second) };
  }
  if ((first.type === "text" && second.type === "text") || (first.type === "reasoning" && second.type === "reasoning"))
    return { ...first, text: first.text + second.text, ...joinedTokens(first, second) };
  return undefined;
}

function joinedTokens(first: DeltaTokens, second: DeltaTokens): DeltaTokens {
  const tokenIds = [...(first.tokenIds ?? []), ...(second.tokenIds ?? [])];
  const logprobs = [...(first.logprobs ?? []), ...(second.logprobs ?? [])];
  return { ...(tokenIds.length === 0 ? {} : { tokenIds }), ...(logprobs.length === 0 ? {} : { logprobs }) };
}
