/**
 * Hermes tool calls, streaming: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, repeated.
 */
import { MarkedCalls } from "./_calls.ts";
import { JsonCallReader } from "./_json-call.ts";
import type { ToolParser } from "./parser.ts";

export const HERMES_MARKS = ["<tool_call>", "</tool_call>"] as const;

export function hermesParser(): ToolParser {
  return new MarkedCalls({ open: "<tool_call>" }, (index) => new JsonCallReader(index));
}
