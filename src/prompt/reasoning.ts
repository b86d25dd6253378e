/**
 * Splits reasoning from the answer, streaming: which family does it how.
 *
 * Invariants, of every family: the split does not depend on where the text was cut; no text makes a parser throw; each
 * character is looked at a bounded number of times.
 */
import type { ReasoningFamily } from "#core/parser-families.ts";
import { HarmonyThought } from "./_harmony-thought.ts";
import { ThinkParser, type ThoughtMarks } from "./_think.ts";
import { HARMONY_MARKS } from "./harmony.ts";

export interface Split {
  readonly reasoning: string;
  readonly content: string;
}

export interface ReasoningParser {
  push(text: string): Split;
  /** The stream is over: what was held back. */
  end(): Split;
  /** Whether the text is inside the reasoning now. */
  readonly thinking: boolean;
}

export interface ThoughtContext {
  /** The text before the answer, which may have opened the thought. */
  readonly prompt: string;
  /** Whether calls are read out of the content: what marks them has to go on. */
  readonly readsCalls: boolean;
}

export interface ReasoningForm {
  /** Literals that are shown to the parser even where they are control tokens, which a request drops. */
  readonly marks: readonly string[];
  /** What opens and closes a thought, where both are one literal. */
  readonly tags: { readonly open: string; readonly close: string } | undefined;
  /** Strings of which a chat template has one if its model thinks so. */
  readonly signs: readonly string[];
  readonly make: (context: ThoughtContext) => ReasoningParser;
}

const THINK = { open: "<think>", close: "</think>" } as const;
const MISTRAL = { open: "[THINK]", close: "[/THINK]" } as const;

/** Thinks if the prompt opened the tag or the answer begins with it. */
function tagged(tags: { readonly open: string; readonly close: string }): ReasoningForm {
  const marks: ThoughtMarks = { opens: [tags.open], closes: [tags.close] };
  return {
    marks: [tags.open, tags.close],
    tags,
    signs: [tags.open, tags.close],
    make: ({ prompt }) =>
      new ThinkParser(marks, prompt.trimEnd().endsWith(tags.open) ? "reasoning" : "start", "content"),
  };
}

/** Quantized models say it shorter. */
const GRANITE: ThoughtMarks = {
  opens: ["Here is my thought process:", "Here's my thought process:"],
  closes: ["Here is my response:", "Here's my response:"],
};

export const REASONING_FORMS: Readonly<Record<ReasoningFamily, ReasoningForm>> = {
  /** A model that thinks always: the opening tag may be missing. */
  deepseek_r1: {
    ...tagged(THINK),
    signs: [],
    make: () => new ThinkParser({ opens: [THINK.open], closes: [THINK.close] }, "start", "reasoning"),
  },
  qwen3: tagged(THINK),
  glm45: tagged(THINK),
  mistral: tagged(MISTRAL),
  granite: {
    marks: [],
    tags: undefined,
    signs: ["Here is my thought process"],
    make: () => new ThinkParser(GRANITE, "start", "content"),
  },
  openai_gptoss: {
    marks: HARMONY_MARKS,
    tags: undefined,
    signs: ["<|channel|>"],
    make: ({ readsCalls }) => new HarmonyThought(readsCalls),
  },
};

/** Looked for in this order: a family's template may speak of another one's tags, too. */
const BY_SIGN: readonly ReasoningFamily[] = ["openai_gptoss", "mistral", "qwen3", "granite"];

/** How the model of a chat template thinks; undefined: the template says nothing of it. */
export function reasoningFamilyIn(template: string): ReasoningFamily | undefined {
  return BY_SIGN.find((family) => REASONING_FORMS[family].signs.some((sign) => template.includes(sign)));
}
