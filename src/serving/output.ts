/**
 * Makes a choice's output pipeline of the prompt area from what a request asks for.
 */
import { Output } from "#prompt/output.ts";
import { REASONING_FORMS } from "#prompt/reasoning.ts";
import { TOOL_FORMS } from "#prompt/tools/families.ts";
import type { MakeOutput } from "./_choice.ts";

export const makeOutput: MakeOutput = ({ reasoning, tools, ...spec }) => {
  const thinks = reasoning === undefined ? undefined : REASONING_FORMS[reasoning.family];
  const calls = tools === undefined ? undefined : TOOL_FORMS[tools.family];
  const readsCalls = tools?.family === "openai";
  return new Output({
    ...spec,
    marks: [...(thinks?.marks ?? []), ...(calls?.marks ?? [])],
    reasoning: reasoning === undefined ? undefined : thinks?.make({ prompt: reasoning.prompt, readsCalls }),
    tools: calls?.make(tools?.definitions ?? []),
  });
};
