/**
 * GLM-4.5's calls and later ones': `<tool_call>NAME`, `<arg_key>KEY</arg_key>` `<arg_value>VALUE</arg_value>` for each
 * argument, `</tool_call>`. Values that the function's schema does not call strings are JSON.
 */
import type { ToolDefinition } from "#core/chat.ts";
import type { CallForm } from "#core/structured.ts";
import { MarkedCalls } from "./_calls.ts";
import { TaggedCallReader, taggedForm } from "./_tagged-call.ts";
import type { ToolParser } from "./parser.ts";

const OPEN = "<tool_call>";
const CLOSE = "</tool_call>";

export const GLM45_MARKS = [OPEN, CLOSE, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"] as const;

const FORM = taggedForm({
  nameEnd: "\n",
  keyOpen: "<arg_key>",
  keyClose: "</arg_key>",
  valueOpen: "<arg_value>",
  valueClose: "</arg_value>",
  impliedEnds: [],
  close: CLOSE,
  impliedCloses: [OPEN],
  trimBreaks: false,
  values: "loose",
});

export const GLM45_CALLS: CallForm = {
  begin: "",
  mark: OPEN,
  head: "",
  name: "plain",
  middle: "\n",
  arguments: {
    kind: "tagged",
    open: "<arg_key>",
    middle: "</arg_key>\n<arg_value>",
    close: "</arg_value>",
    after: "\n",
    excludes: [],
  },
  close: CLOSE,
  joint: "\n",
  end: "",
};

export function glm45Parser(tools: readonly ToolDefinition[]): ToolParser {
  return new MarkedCalls({ open: OPEN }, (index) => new TaggedCallReader(index, FORM, tools));
}
