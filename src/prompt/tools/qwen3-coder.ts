/**
 * Qwen3-Coder's calls: `<function=NAME>`, `<parameter=KEY>` VALUE `</parameter>` for each argument, `</function>`, all in
 * `<tool_call>` tags or not. Values are text, and become what the function's schema says.
 */
import { newId } from "#base/ids.ts";
import type { ToolDefinition } from "#core/chat.ts";
import type { CallForm } from "#core/structured.ts";
import { MarkedCalls } from "./_calls.ts";
import { TaggedCallReader, taggedForm } from "./_tagged-call.ts";
import type { ToolParser } from "./parser.ts";

const SECTION = "<tool_call>";
const OPEN = "<function=";

export const QWEN3_CODER_MARKS = [SECTION, "</tool_call>"] as const;

const FORM = taggedForm({
  nameEnd: ">",
  keyOpen: "<parameter=",
  keyClose: ">",
  valueOpen: "",
  valueClose: "</parameter>",
  impliedEnds: ["\n<parameter=", "\n</function>"],
  close: "</function>",
  impliedCloses: ["</tool_call>", SECTION, OPEN],
  trimBreaks: true,
  values: "typed",
  makeId: () => `call_${newId().slice(0, 24)}`,
});

export const QWEN3_CODER_CALLS: CallForm = {
  begin: `${SECTION}\n`,
  mark: OPEN,
  head: "",
  name: "plain",
  middle: ">\n",
  arguments: {
    kind: "tagged",
    open: "<parameter=",
    middle: ">\n",
    close: "\n</parameter>",
    after: "\n",
    excludes: ["</parameter>", "\n<parameter=", "\n</function>"],
  },
  close: "</function>",
  joint: `\n</tool_call>\n${SECTION}\n`,
  end: "\n</tool_call>",
};

export function qwen3CoderParser(tools: readonly ToolDefinition[]): ToolParser {
  return new MarkedCalls({ open: OPEN, section: SECTION }, (index) => new TaggedCallReader(index, FORM, tools));
}
