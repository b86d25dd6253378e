/**
 * An output pipeline for tests that are not about it: text, stop strings, nothing held back but for them.
 */
import type { MakeOutput } from "./_choice.ts";
import { printPosition } from "./_choice.ts";
import type { ChoiceEvent } from "./_generate.ts";

export const fakeOutput: MakeOutput = (spec) => {
  const { choice, tokenizer } = spec;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let text = "";
  let sent = 0;
  let tokens = 0;
  let ended = false;
  const flush = (upTo: number, extra: object): ChoiceEvent[] => {
    const delta = text.slice(sent, upTo);
    sent = Math.max(sent, upTo);
    return delta === "" && Object.keys(extra).length === 0 ? [] : [{ type: "text", choice, text: delta, ...extra }];
  };
  return {
    push: (drawn, logprobs) => {
      tokens += drawn.length;
      for (const token of drawn)
        text += decoder.decode(tokenizer.piece(token, !spec.skipSpecialTokens), { stream: true });
      const extra = {
        ...(spec.tokenIds ? { tokenIds: drawn } : {}),
        ...(spec.logprobs && logprobs !== undefined
          ? { logprobs: logprobs.map((entry) => printPosition(tokenizer, entry)) }
          : {}),
      };
      const stop = spec.stop.find((candidate) => text.includes(candidate));
      if (stop === undefined)
        return flush(text.length - Math.max(0, ...spec.stop.map((entry) => entry.length - 1)), extra);
      ended = true;
      return [
        ...flush(text.indexOf(stop) + (spec.includeStopString ? stop.length : 0), extra),
        { type: "finish", choice, reason: "stop", stop },
      ];
    },
    end: (reason, stopToken) => {
      ended = true;
      text += decoder.decode();
      const reported = stopToken !== undefined && spec.stopTokenIds.includes(stopToken);
      return [...flush(text.length, {}), { type: "finish", choice, reason, ...(reported ? { stop: stopToken } : {}) }];
    },
    get ended() {
      return ended;
    },
    get tokens() {
      return tokens;
    },
    reasoningTokens: 0,
  };
};
