/**
 * Granite 3's calls: the output is a JSON list of `{"name": …, "arguments": {…}}` behind `<|tool_call|>` (3.0),
 * `<tool_call>` (3.1) or nothing.
 */
import type { CallForm } from "#core/structured.ts";
import { LeadingCalls } from "./_calls.ts";
import { JSON_LIST_CALLS, JsonCallReader } from "./_json-call.ts";
import type { ToolParser } from "./parser.ts";

export const GRANITE_MARKS = ["<|tool_call|>", "<tool_call>"] as const;

export const GRANITE_CALLS: CallForm = JSON_LIST_CALLS;

export function graniteParser(): ToolParser {
  return new LeadingCalls(
    { prefixes: GRANITE_MARKS, first: "{", list: true, joint: "," },
    (index) => new JsonCallReader(index),
  );
}
