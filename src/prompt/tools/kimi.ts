/**
 * Kimi K2's calls: `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{…}<|tool_call_end|>` in a section
 * of marks. What stands before the arguments is the call's id, which the model wants back as it was.
 */
import type { CallForm } from "#core/structured.ts";
import { MarkedCalls } from "./_calls.ts";
import { type Head, HeadedCallReader, headMarks, nameOf } from "./_headed-call.ts";
import type { ToolParser } from "./parser.ts";

const SECTION = "<|tool_calls_section_begin|>";
const SECTION_END = "<|tool_calls_section_end|>";
const OPEN = "<|tool_call_begin|>";
const CLOSE = "<|tool_call_end|>";
const ARGUMENTS = "<|tool_call_argument_begin|>";

export const KIMI_MARKS = [SECTION, SECTION_END, OPEN, CLOSE, ARGUMENTS] as const;

const HEAD = headMarks(CLOSE, [OPEN, SECTION, SECTION_END]);

export const KIMI_CALLS: CallForm = {
  begin: SECTION,
  mark: OPEN,
  head: "functions.",
  name: "plain",
  numbered: true,
  middle: ARGUMENTS,
  close: CLOSE,
  joint: "",
  end: SECTION_END,
};

export function kimiParser(): ToolParser {
  const form = { parse: headOf, close: CLOSE, marks: HEAD };
  return new MarkedCalls({ open: OPEN, section: SECTION }, (index) => new HeadedCallReader(index, form));
}

function headOf(head: string): Head | undefined {
  const [id = "", rest, ...more] = head.split(ARGUMENTS);
  const called = /^\s*((?:functions\.)?([^\s:<>]+):\d{1,9})\s*$/.exec(id);
  const name = nameOf(called?.[2] ?? "");
  if (called?.[1] === undefined || name === undefined || rest?.trim() !== "" || more.length > 0) return undefined;
  return { name, id: called[1] };
}
