/**
 * An output pipeline for tests that are not about it. Text flows at once, but for what may begin a stop string; an
 * answer that is to be split into reasoning and tool calls is kept to its end. Tests only.
 */
import type { FinishReason } from "#core/generate.ts";
import { type MakeOutput, type OutputSpec, printPosition } from "./_choice.ts";
import type { ChoiceEvent } from "./_generate.ts";

export const fakeOutput: MakeOutput = (spec) => {
  const { choice, tokenizer } = spec;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const heldBack = Math.max(0, ...spec.stop.map((stop) => stop.length - 1));
  let text = "";
  let sent = 0;
  let tokens = 0;
  let reasoningTokens = 0;
  let ended = false;
  const parsed = () => spec.tools !== undefined || (spec.reasoning !== undefined && mayThink(text));
  const send = (upTo: number, extra: object): ChoiceEvent[] => {
    const delta = text.slice(sent, upTo);
    sent = Math.max(sent, upTo);
    return delta === "" && Object.keys(extra).length === 0 ? [] : [{ type: "text", choice, text: delta, ...extra }];
  };
  const finish = (upTo: number, extra: object, reason: FinishReason, stop?: string | number): ChoiceEvent[] => {
    ended = true;
    const last = { type: "finish", choice, reason, ...(stop === undefined ? {} : { stop }) } as const;
    if (!parsed()) return [...send(upTo, extra), last];
    const parts = split(text.slice(0, upTo), spec);
    reasoningTokens = parts.find((part) => part.type === "reasoning") === undefined ? 0 : 1;
    return [...send(0, extra), ...parts, last];
  };
  return {
    push: (drawn, logprobs) => {
      tokens += drawn.length;
      for (const token of drawn) {
        text += decoder.decode(tokenizer.piece(token, !spec.skipSpecialTokens), { stream: true });
      }
      const extra = {
        ...(spec.tokenIds ? { tokenIds: drawn } : {}),
        ...(spec.logprobs && logprobs ? { logprobs: logprobs.map((entry) => printPosition(tokenizer, entry)) } : {}),
      };
      const stop = spec.stop.find((candidate) => text.includes(candidate));
      if (stop === undefined) return send(parsed() ? 0 : Math.max(0, text.length - heldBack), extra);
      return finish(text.indexOf(stop) + (spec.includeStopString ? stop.length : 0), extra, "stop", stop);
    },
    end: (reason, stopToken) => {
      text += decoder.decode();
      const reported = stopToken !== undefined && spec.stopTokenIds.includes(stopToken) ? stopToken : undefined;
      return finish(text.length, {}, reason, reported);
    },
    get ended() {
      return ended;
    },
    get tokens() {
      return tokens;
    },
    get reasoningTokens() {
      return reasoningTokens;
    },
  };
};

function mayThink(text: string): boolean {
  return "<think>".startsWith(text) || text.startsWith("<think>");
}

const THINK = /^<think>([\s\S]*?)<\/think>/;
const CALL = /<tool_call>([\s\S]*?)<\/tool_call>\n?/g;

function split(text: string, { choice, reasoning, tools }: OutputSpec): ChoiceEvent[] {
  const events: ChoiceEvent[] = [];
  let rest = text;
  if (reasoning !== undefined) {
    const thought = THINK.exec(rest)?.[1];
    if (thought !== undefined) events.push({ type: "reasoning", choice, text: thought });
    rest = rest.replace(THINK, "");
  }
  const calls = tools === undefined ? [] : [...rest.matchAll(CALL)];
  if (calls.length > 0) rest = rest.replace(CALL, "");
  if (rest !== "") events.push({ type: "text", choice, text: rest });
  for (const [index, [, body = "{}"]] of calls.entries()) {
    const { name, arguments: args } = JSON.parse(body) as { name: string; arguments: unknown };
    const id = `chatcmpl-tool-${index}`;
    events.push({ type: "tool-call", choice, index, id, name, arguments: JSON.stringify(args) });
  }
  return events;
}
