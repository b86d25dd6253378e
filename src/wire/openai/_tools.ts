/**
 * `tools` and `tool_choice` (vLLM: ChatCompletionRequest.check_tool_usage).
 */
import type { ToolChoice, ToolDefinition } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject, requireList, requireObject, requireSize, requireString } from "./_compound.ts";
import { dropAbsent } from "./_sampling.ts";

const NAME_LENGTH = 256;

export function decodeTools(value: unknown, caps: RequestCaps): readonly ToolDefinition[] {
  if (value === undefined || value === null) return [];
  const list = requireList(value, "tools", caps.tools);
  if (list.length === 0)
    throw invalid(
      "tools",
      "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
    );
  requireSize(list, "tools", caps.toolCharacters, caps.toolDepth);
  return list.map((entry, i) => decodeTool(requireObject(entry, `tools.${i}`), `tools.${i}`));
}

function decodeTool(tool: JsonObject, path: string): ToolDefinition {
  if (tool.type !== undefined && tool.type !== "function")
    throw invalid(`${path}.type`, "only tools of type function are known.");
  const definition = requireObject(tool.function, `${path}.function`);
  const name = requireString(definition.name, `${path}.function.name`);
  if (name === "" || name.length > NAME_LENGTH)
    throw invalid(`${path}.function.name`, `a function's name has 1 to ${NAME_LENGTH} characters.`);
  const { description, parameters } = definition;
  return dropAbsent<ToolDefinition>({
    name,
    description:
      description === undefined || description === null
        ? undefined
        : requireString(description, `${path}.function.description`),
    parameters:
      parameters === undefined || parameters === null
        ? undefined
        : requireObject(parameters, `${path}.function.parameters`),
    raw: tool,
  });
}

/** Absent with tools: auto. */
export function decodeToolChoice(value: unknown, tools: readonly ToolDefinition[]): ToolChoice {
  if (value === undefined || value === null) return tools.length > 0 ? "auto" : "none";
  if (value === "none") return "none";
  if (tools.length === 0) throw invalid("tool_choice", "When using `tool_choice`, `tools` must be set.");
  if (value === "auto") return "auto";
  return value === "required" ? "required" : knownFunction(value, tools);
}

function knownFunction(value: unknown, tools: readonly ToolDefinition[]): { readonly name: string } {
  if (!isObject(value)) throw invalid("tool_choice", 'Only named tools, "none", "auto" or "required" are supported.');
  const target = requireObject(value.function, "tool_choice.function");
  const name = requireString(target.name, "tool_choice.function.name");
  if (!tools.some((tool) => tool.name === name)) {
    throw invalid("tool_choice", "The tool specified in `tool_choice` does not match any of the specified `tools`");
  }
  return { name };
}
