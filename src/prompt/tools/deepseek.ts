/**
 * DeepSeek's calls. V3 and R1: `function`, a separator, the name and a line break, and the arguments in a fence of JSON;
 * V3.1: the name, a separator and the arguments. Each call has marks around it, and so has the run of them.
 */
import type { CallForm } from "#core/structured.ts";
import { MarkedCalls } from "./_calls.ts";
import { type Head, HeadedCallReader, headMarks, nameOf } from "./_headed-call.ts";
import type { ToolParser } from "./parser.ts";

// Bars are U+FF5C, gaps U+2581.
const SECTION = "<｜tool▁calls▁begin｜>";
const SECTION_END = "<｜tool▁calls▁end｜>";
const OPEN = "<｜tool▁call▁begin｜>";
const CLOSE = "<｜tool▁call▁end｜>";
const SEPARATOR = "<｜tool▁sep｜>";

export const DEEPSEEK_MARKS = [SECTION, SECTION_END, OPEN, CLOSE, SEPARATOR] as const;

const HEAD = headMarks(CLOSE, [OPEN, SECTION, SECTION_END]);

const CALLS = { begin: SECTION, mark: OPEN, name: "plain", end: SECTION_END } as const;

export const DEEPSEEK_V3_CALLS: CallForm = {
  ...CALLS,
  head: `function${SEPARATOR}`,
  middle: "\n```json\n",
  close: `\n\`\`\`${CLOSE}`,
  joint: "\n",
};

export const DEEPSEEK_V31_CALLS: CallForm = { ...CALLS, head: "", middle: SEPARATOR, close: CLOSE, joint: "" };

export function deepseekV3Parser(): ToolParser {
  return parser(headV3);
}

export function deepseekV31Parser(): ToolParser {
  return parser(headV31);
}

function parser(parse: (head: string) => Head | undefined): ToolParser {
  const form = { parse, close: CLOSE, marks: HEAD };
  return new MarkedCalls({ open: OPEN, section: SECTION }, (index) => new HeadedCallReader(index, form));
}

/** `function<sep>NAME\n` and the beginning of a fence. */
function headV3(head: string): Head | undefined {
  const [type, rest, ...more] = head.split(SEPARATOR);
  if (type?.trim() !== "function" || rest === undefined || more.length > 0) return undefined;
  const [first = "", ...lines] = rest.trimStart().split("\n");
  const fence = lines.join("\n").trim();
  const name = nameOf(first);
  return name === undefined || !["", "```", "```json"].includes(fence) ? undefined : { name };
}

function headV31(head: string): Head | undefined {
  const [first = "", rest, ...more] = head.split(SEPARATOR);
  const name = nameOf(first);
  return name === undefined || rest?.trim() !== "" || more.length > 0 ? undefined : { name };
}
