/**
 * Hermes tool calls, streaming: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, repeated.
 */
import type { CallForm } from "#core/structured.ts";
import { MarkedCalls } from "./_calls.ts";
import { JsonCallReader } from "./_json-call.ts";
import type { ToolParser } from "./parser.ts";

export const HERMES_MARKS = ["<tool_call>", "</tool_call>"] as const;

export const HERMES_CALLS: CallForm = {
  begin: "",
  mark: "<tool_call>",
  head: '\n{"name": ',
  name: "json",
  middle: ', "arguments": ',
  close: "}\n</tool_call>",
  joint: "\n",
  end: "",
};

export function hermesParser(): ToolParser {
  return new MarkedCalls({ open: "<tool_call>" }, (index) => new JsonCallReader(index));
}
