/**
 * How a model's reasoning and tool calls are read, by the settings and its chat template. Called by compose.ts.
 */
import type { Settings } from "#config/settings.ts";
import { reasoningFamilyOf, toolFamilyOf } from "#core/parser-families.ts";
import { reasoningFamilyIn } from "#prompt/reasoning.ts";
import { toolFamilyIn } from "#prompt/tools/families.ts";
import type { ServedModel } from "#serving/models.ts";

type Wanted = Pick<Settings, "reasoningParser" | "toolCallParser" | "enableAutoToolChoice" | "holdToolCalls">;

/** @param template Jinja source; empty: there is none */
export function parsersFor(wanted: Wanted, template: string): ServedModel["parsers"] {
  return {
    reasoning: reasoningOf(wanted.reasoningParser, template),
    tools: wanted.enableAutoToolChoice ? toolsOf(wanted.toolCallParser, template) : undefined,
    holdCalls: wanted.holdToolCalls,
  };
}

function reasoningOf(name: Wanted["reasoningParser"], template: string): ServedModel["parsers"]["reasoning"] {
  if (name === "none") return undefined;
  return name === "auto" ? reasoningFamilyIn(template) : reasoningFamilyOf(name);
}

/** A template that does not tell is read as Hermes: without calls in its form nothing is lost. */
function toolsOf(name: Wanted["toolCallParser"], template: string): ServedModel["parsers"]["tools"] {
  if (name === "none") return undefined;
  return name === "auto" ? (toolFamilyIn(template) ?? "hermes") : toolFamilyOf(name);
}
