/**
 * Makes a choice's output pipeline of the prompt area from what a request asks for.
 */
import { Output } from "#prompt/output.ts";
import { REASONING_PARSERS, type ReasoningFamily } from "#prompt/reasoning.ts";
import { hermesParser } from "#prompt/tools/hermes.ts";
import type { MakeOutput } from "./_choice.ts";

/** @param family how the served model marks its reasoning */
export function outputMaker(family: ReasoningFamily): MakeOutput {
  return (spec) =>
    new Output({
      ...spec,
      reasoning: spec.reasoning === undefined ? undefined : REASONING_PARSERS[family](spec.reasoning.prompt),
      tools: spec.tools === undefined || spec.tools.length === 0 ? undefined : hermesParser(),
    });
}
