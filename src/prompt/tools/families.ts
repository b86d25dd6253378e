/**
 * The families of models by how they write tool calls: what reads each. A family is a row here and a file beside it.
 */
import type { ToolDefinition } from "#core/chat.ts";
import type { ToolFamily } from "#core/parser-families.ts";
import type { CallForm } from "#core/structured.ts";
import { HARMONY_MARKS } from "#prompt/harmony.ts";
import {
  DEEPSEEK_MARKS,
  DEEPSEEK_V3_CALLS,
  DEEPSEEK_V31_CALLS,
  deepseekV3Parser,
  deepseekV31Parser,
} from "./deepseek.ts";
import { GLM45_CALLS, GLM45_MARKS, glm45Parser } from "./glm45.ts";
import { GRANITE_CALLS, GRANITE_MARKS, graniteParser } from "./granite.ts";
import { HERMES_CALLS, HERMES_MARKS, hermesParser } from "./hermes.ts";
import { KIMI_CALLS, KIMI_MARKS, kimiParser } from "./kimi.ts";
import { LLAMA3_CALLS, LLAMA3_MARKS, llama3Parser } from "./llama3.ts";
import { MISTRAL_CALLS, MISTRAL_LISTED_CALLS, MISTRAL_MARKS, mistralParser } from "./mistral.ts";
import { OPENAI_CALLS, openaiParser } from "./openai.ts";
import type { ToolParser } from "./parser.ts";
import { LLAMA4_MARKS, llama4PythonicParser, PYTHONIC_CALLS, pythonicParser } from "./pythonic.ts";
import { QWEN3_CODER_CALLS, QWEN3_CODER_MARKS, qwen3CoderParser } from "./qwen3-coder.ts";

export interface ToolForm {
  /** Literals that are shown to the parser even where they are control tokens, which a request drops. */
  readonly marks: readonly string[];
  /** Strings of which a chat template has one if its model writes calls so; none: nothing tells. */
  readonly signs: readonly string[];
  /** In which calls can be held. */
  readonly calls: CallForm;
  /** How the family's models write them whose vocabulary lacks a mark. */
  readonly older?: { readonly without: string; readonly calls: CallForm };
  readonly make: (tools: readonly ToolDefinition[]) => ToolParser;
}

export const TOOL_FORMS: Readonly<Record<ToolFamily, ToolForm>> = {
  hermes: { marks: HERMES_MARKS, signs: ["<tool_call>"], calls: HERMES_CALLS, make: hermesParser },
  llama3_json: {
    marks: LLAMA3_MARKS,
    signs: ["<|python_tag|>", '"parameters": dictionary'],
    calls: LLAMA3_CALLS,
    make: llama3Parser,
  },
  llama4_pythonic: {
    marks: LLAMA4_MARKS,
    signs: ["<|python_start|>"],
    calls: PYTHONIC_CALLS,
    make: llama4PythonicParser,
  },
  pythonic: { marks: [], signs: [], calls: PYTHONIC_CALLS, make: pythonicParser },
  mistral: {
    marks: MISTRAL_MARKS,
    signs: ["[TOOL_CALLS]"],
    calls: MISTRAL_CALLS,
    older: { without: "[ARGS]", calls: MISTRAL_LISTED_CALLS },
    make: mistralParser,
  },
  qwen3_coder: {
    marks: QWEN3_CODER_MARKS,
    signs: ["<function="],
    calls: QWEN3_CODER_CALLS,
    make: qwen3CoderParser,
  },
  deepseek_v3: { marks: DEEPSEEK_MARKS, signs: ["<｜tool▁sep｜>"], calls: DEEPSEEK_V3_CALLS, make: deepseekV3Parser },
  deepseek_v31: { marks: DEEPSEEK_MARKS, signs: [], calls: DEEPSEEK_V31_CALLS, make: deepseekV31Parser },
  granite: { marks: GRANITE_MARKS, signs: ["<|tool_call|>"], calls: GRANITE_CALLS, make: graniteParser },
  kimi_k2: { marks: KIMI_MARKS, signs: ["<|tool_calls_section_begin|>"], calls: KIMI_CALLS, make: kimiParser },
  glm45: { marks: GLM45_MARKS, signs: ["<arg_key>"], calls: GLM45_CALLS, make: glm45Parser },
  openai: { marks: HARMONY_MARKS, signs: ["<|channel|>"], calls: OPENAI_CALLS, make: openaiParser },
};

/** Looked for in this order: the tags of some stand in the templates of others. */
const BY_SIGN: readonly ToolFamily[] = [
  "openai",
  "mistral",
  "kimi_k2",
  "deepseek_v3",
  "glm45",
  "qwen3_coder",
  "granite",
  "llama4_pythonic",
  "hermes",
  "llama3_json",
];

/** How the model of a chat template writes calls; undefined: the template does not tell. */
export function toolFamilyIn(template: string): ToolFamily | undefined {
  const found = BY_SIGN.find((family) => TOOL_FORMS[family].signs.some((sign) => template.includes(sign)));
  // V3.1's template has the same marks, and no fence.
  return found === "deepseek_v3" && !template.includes("```json") ? "deepseek_v31" : found;
}
