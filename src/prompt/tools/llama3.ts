/**
 * Llama 3's calls as JSON: the output is `{"name": …, "parameters": {…}}`, or several joined by `;`, behind
 * `<|python_tag|>` or not.
 */
import type { CallForm } from "#core/structured.ts";
import { LeadingCalls } from "./_calls.ts";
import { JsonCallReader } from "./_json-call.ts";
import type { ToolParser } from "./parser.ts";

const TAG = "<|python_tag|>";
export const LLAMA3_MARKS = [TAG] as const;

export const LLAMA3_CALLS: CallForm = {
  begin: "",
  mark: "",
  head: '{"name": ',
  name: "json",
  middle: ', "parameters": ',
  close: "}",
  joint: "; ",
  end: "",
};

export function llama3Parser(): ToolParser {
  return new LeadingCalls(
    { prefixes: [TAG], first: "{", list: false, joint: ";" },
    (index) => new JsonCallReader(index),
  );
}
