/**
 * Derendering in pieces: one chunk of /inference/v1/generate → one of the chat or completion, and what the client
 * brings along to the next one (vllm/entrypoints/scale_out/derender). Nothing is kept here.
 *
 * Wall: T10, the tokens that are brought along count with the new ones: all are read again by the parsers.
 */
import { z } from "zod";
import type { ChoiceEvent, Usage } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { FinishReason } from "#core/generate.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import {
  isObject,
  type JsonObject,
  requireList,
  requireObject,
  requireString,
  requireTokenIds,
} from "#wire/openai/_compound.ts";
import { finalUsage, type UsageDetails } from "#wire/openai/_usage.ts";
import { requireHealthy } from "#wire/openai/chat-encode.ts";
import { ChatChunk, CompletionChunk } from "#wire/openai/replies.ts";
import { decodeCounts, decodeReason } from "./derender.ts";

const State = z.object({
  output_token_ids: z.array(z.int()),
  role_sent: z.boolean(),
  tools_streamed: z.boolean(),
  last_tool_call_ids: z.array(z.string()),
});
type State = z.infer<typeof State>;

export const ChatPartReply = z.object({ chunk: ChatChunk, stream_state: State });
export const CompletionPartReply = z.object({ chunk: CompletionChunk, stream_state: State });

export interface DecodedPart {
  /** Undefined: a chunk of no choice, for its usage. */
  readonly part:
    | {
        readonly choice: number;
        readonly before: readonly number[];
        readonly tokens: readonly number[];
        readonly reason: FinishReason | undefined;
        readonly fields: readonly [before: string, tokens: string];
      }
    | undefined;
  readonly state: State;
  /** As the client has it from the engine. */
  readonly id: string | undefined;
  readonly created: number | undefined;
  readonly usage: Usage | undefined;
}

const CHUNK = "generate_chunk";
const STATE = "stream_state";
const ID_LENGTH = 256;

interface Body {
  readonly generate_chunk?: unknown;
  readonly stream_state?: unknown;
  readonly prompt_tokens?: unknown;
}

/** @throws Fault invalid_request naming the field */
export function decodePart(body: Body, caps: RequestCaps): DecodedPart {
  const chunk = requireObject(body.generate_chunk, CHUNK);
  const state = decodeState(body.stream_state, caps);
  const choices = requireList(chunk["choices"], `${CHUNK}.choices`, 1);
  const { request_id: id, created } = chunk;
  const known = {
    state,
    id: id === undefined || id === null ? undefined : requireString(id, `${CHUNK}.request_id`).slice(0, ID_LENGTH),
    created: Number.isSafeInteger(created) && (created as number) >= 0 ? (created as number) : undefined,
    usage: decodeUsage(chunk["usage"], body.prompt_tokens),
  };
  if (choices.length === 0) return { ...known, part: undefined };
  const field = `${CHUNK}.choices.0`;
  const choice = requireObject(choices[0], field);
  const index = choice["index"] ?? 0;
  if (!Number.isSafeInteger(index) || (index as number) < 0 || (index as number) >= caps.choices)
    throw invalid(`${field}.index`, `${field}.index lies between 0 and ${caps.choices - 1}.`);
  const before = state.output_token_ids;
  const tokens = requireTokenIds(choice["token_ids"] ?? [], `${field}.token_ids`, caps.derenderTokens - before.length);
  const finish = choice["finish_reason"] ?? undefined;
  const part = {
    choice: index as number,
    before,
    tokens,
    reason: finish === undefined ? undefined : decodeReason(finish, `${field}.finish_reason`),
    fields: [`${STATE}.output_token_ids`, `${field}.token_ids`] as const,
  };
  return { ...known, part };
}

function decodeState(value: unknown, caps: RequestCaps): State {
  const given: JsonObject = value === undefined || value === null ? {} : requireObject(value, STATE);
  const flag = (name: string): boolean => {
    const said = given[name] ?? false;
    if (typeof said !== "boolean") throw invalid(`${STATE}.${name}`, `${STATE}.${name} must be true or false.`);
    return said;
  };
  const ids = requireList(given["last_tool_call_ids"] ?? [], `${STATE}.last_tool_call_ids`, caps.tools);
  return {
    output_token_ids: [
      ...requireTokenIds(given["output_token_ids"] ?? [], `${STATE}.output_token_ids`, caps.derenderTokens),
    ],
    role_sent: flag("role_sent"),
    tools_streamed: flag("tools_streamed"),
    last_tool_call_ids: ids.map((id, i) => {
      const text = requireString(id, `${STATE}.last_tool_call_ids.${i}`);
      if (text.length > ID_LENGTH) throw invalid(`${STATE}.last_tool_call_ids.${i}`, "An id is too long.");
      return text;
    }),
  };
}

function decodeUsage(value: unknown, promptTokens: unknown): Usage | undefined {
  const given = typeof promptTokens === "number" ? decodeCounts(promptTokens, 1) : undefined;
  if (!isObject(value)) return undefined;
  const count = (name: string): number => {
    const said = value[name] ?? 0;
    if (!Number.isSafeInteger(said) || (said as number) < 0)
      throw invalid(`${CHUNK}.usage.${name}`, `${CHUNK}.usage.${name} must be a whole number from 0 up.`);
    return said as number;
  };
  return {
    promptTokens: given ?? count("prompt_tokens"),
    completionTokens: count("completion_tokens"),
    cachedTokens: 0,
    reasoningTokens: 0,
  };
}

export interface Piece {
  readonly model: string;
  readonly events: readonly ChoiceEvent[];
}

/** Head of a chunk. */
export interface PartHead {
  readonly id: string;
  readonly created: number;
  readonly usage: UsageDetails;
}

export function encodeChatPart({ model, events }: Piece, { part, state, usage }: DecodedPart, head: PartHead) {
  const ids = [...state.last_tool_call_ids];
  const calls = new Map<number, Call>();
  const text = { content: "", reasoning: "" };
  for (const event of events) {
    if (event.type === "text") text.content += event.text;
    else if (event.type === "reasoning") text.reasoning += event.text;
    else if (event.type === "tool-call") addCall(calls, ids, event);
  }
  const delta = {
    ...(state.role_sent ? {} : { role: "assistant" }),
    ...(text.reasoning === "" ? {} : { reasoning: text.reasoning }),
    ...(text.content === "" ? {} : { content: text.content }),
    ...(calls.size === 0 ? {} : { tool_calls: [...calls.values()] }),
  };
  const choice = part === undefined ? [] : [{ index: part.choice, delta, logprobs: null, ...endOf(events) }];
  return {
    chunk: chunkOf("chat.completion.chunk" as const, model, choice, usage, head),
    stream_state: next(state, part, ids, calls.size > 0),
  };
}

export function encodeCompletionPart({ model, events }: Piece, { part, state, usage }: DecodedPart, head: PartHead) {
  const text = events.map((event) => (event.type === "text" ? event.text : "")).join("");
  const ids = { prompt_token_ids: null, token_ids: null };
  const choice = part === undefined ? [] : [{ index: part.choice, text, logprobs: null, ...endOf(events), ...ids }];
  return {
    chunk: chunkOf("text_completion" as const, model, choice, usage, head),
    stream_state: next(state, part, state.last_tool_call_ids, false),
  };
}

interface Call {
  readonly id?: string;
  readonly type?: "function";
  readonly index: number;
  readonly function: { readonly name?: string; readonly arguments: string };
}

/** A call keeps the id that it was given in the piece in which it began: the parsers make a new one each time. */
function addCall(calls: Map<number, Call>, ids: string[], event: Extract<ChoiceEvent, { type: "tool-call" }>): void {
  const { index, id, name, arguments: more } = event;
  const known = calls.get(index);
  if (id !== undefined) ids[index] ??= id;
  const own = ids[index] ?? id;
  calls.set(index, {
    ...(known ?? (id === undefined || own === undefined ? {} : { id: own, type: "function" as const })),
    index,
    function: {
      ...known?.function,
      ...(name === undefined ? {} : { name }),
      arguments: (known?.function.arguments ?? "") + more,
    },
  });
}

function endOf(events: readonly ChoiceEvent[]) {
  const end = events.find((event) => event.type === "finish");
  if (end !== undefined) requireHealthy(end.reason);
  return { finish_reason: end?.reason ?? null, stop_reason: end?.stop ?? null };
}

function chunkOf<O, C>(object: O, model: string, choices: C[], usage: Usage | undefined, head: PartHead) {
  const { id, created } = head;
  const counted = usage === undefined ? {} : { usage: finalUsage(usage, { ...head.usage, reasoningTokens: false }) };
  return { id, object, created, model, choices, ...counted };
}

/** With the fields of vLLM's state that mean nothing here, as they are when nothing was said. */
function next(state: State, part: DecodedPart["part"], ids: readonly string[], called: boolean) {
  return {
    prev_tokens: [],
    prefix_offset: 0,
    read_offset: 0,
    last_content: null,
    last_reasoning: null,
    output_token_ids: [...state.output_token_ids, ...(part?.tokens ?? [])],
    role_sent: state.role_sent || part !== undefined,
    tools_streamed: state.tools_streamed || called,
    last_tool_call_ids: [...ids],
  };
}
