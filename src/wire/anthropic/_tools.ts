/**
 * `tools` and `tool_choice` → core. A tool is told to the template in the form that templates know, OpenAI's.
 */
import type { ToolChoice, ToolDefinition } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { type JsonObject, requireList, requireObject, requireSize, requireString } from "#wire/openai/_compound.ts";
import { dropAbsent } from "#wire/openai/_sampling.ts";

const NAME_LENGTH = 256;
const TYPE_SHOWN = 64;

export interface Tools {
  readonly tools: readonly ToolDefinition[];
  readonly toolChoice: ToolChoice;
  readonly parallelToolCalls: boolean;
}

/** @throws Fault invalid_request naming the field */
export function decodeTools(tools: unknown, choice: unknown, caps: RequestCaps): Tools {
  const definitions = decodeDefinitions(tools, caps);
  const given = choice === undefined || choice === null ? { type: "auto" } : requireObject(choice, "tool_choice");
  return {
    tools: definitions,
    toolChoice: decodeChoice(given, definitions),
    parallelToolCalls: given.disable_parallel_tool_use !== true,
  };
}

function decodeDefinitions(value: unknown, caps: RequestCaps): readonly ToolDefinition[] {
  if (value === undefined || value === null) return [];
  const list = requireList(value, "tools", caps.tools);
  requireSize(list, "tools", caps.toolCharacters, caps.toolDepth);
  return list.map((entry, i) => decodeTool(requireObject(entry, `tools.${i}`), `tools.${i}`));
}

function decodeTool(tool: JsonObject, path: string): ToolDefinition {
  const type = tool.type ?? "custom";
  if (type !== "custom") {
    const shown = typeof type === "string" ? type.slice(0, TYPE_SHOWN) : "no string";
    throw invalid(
      `${path}.type`,
      `${path}.type is ${shown}: tools of Anthropic's service are not here; this server takes custom tools with an input_schema.`,
    );
  }
  const name = requireString(tool.name, `${path}.name`);
  if (name === "" || name.length > NAME_LENGTH)
    throw invalid(`${path}.name`, `${path}.name has 1 to ${NAME_LENGTH} characters.`);
  const schema = requireObject(tool.input_schema, `${path}.input_schema`);
  const parameters = "type" in schema ? schema : { ...schema, type: "object" };
  const { description } = tool;
  const definition = dropAbsent<Omit<ToolDefinition, "raw">>({
    name,
    description:
      description === undefined || description === null ? undefined : requireString(description, `${path}.description`),
    parameters,
  });
  return { ...definition, raw: { type: "function", function: definition } };
}

function decodeChoice(choice: JsonObject, tools: readonly ToolDefinition[]): ToolChoice {
  const { type } = choice;
  if (type === "none") return "none";
  if (type === "auto") return tools.length > 0 ? "auto" : "none";
  if (type !== "any" && type !== "tool")
    throw invalid("tool_choice.type", "tool_choice.type must be auto, any, tool or none.");
  if (tools.length === 0) throw invalid("tool_choice", `tool_choice of type ${type} needs tools.`);
  if (type === "any") return "required";
  const name = requireString(choice.name, "tool_choice.name");
  if (!tools.some((tool) => tool.name === name))
    throw invalid("tool_choice.name", "tool_choice.name is not the name of one of the tools.");
  return { name };
}
