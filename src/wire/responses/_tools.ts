/**
 * `tools` and `tool_choice` of a responses request: functions; tools that the server would have to run are refused.
 */
import type { ToolChoice, ToolDefinition } from "#core/chat.ts";
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { isObject, type JsonObject, requireList, requireObject, requireString } from "#wire/openai/_compound.ts";
import { decodeTools } from "#wire/openai/_tools.ts";

export interface Tools {
  readonly tools: readonly ToolDefinition[];
  readonly choice: ToolChoice;
}

/** @throws Fault invalid_request | not_implemented, naming the tool */
export function decodeToolFields(tools: unknown, choice: unknown, caps: RequestCaps): Tools {
  const known = decodeFunctions(tools, caps);
  if (choice === undefined || choice === null || choice === "auto")
    return { tools: known, choice: known.length > 0 ? "auto" : "none" };
  if (choice === "none") return { tools: known, choice };
  if (choice === "required") return { tools: requireSome(known), choice };
  if (!isObject(choice)) throw invalid("tool_choice", "tool_choice must be none, auto, required or an object.");
  if (choice["type"] === "function") return { tools: known, choice: { name: nameOf(choice, "tool_choice", known) } };
  if (choice["type"] === "allowed_tools") return decodeAllowed(choice, known, caps);
  requireString(choice["type"], "tool_choice.type");
  throw new Fault("not_implemented", "tool_choice of this type is not supported by this server.", {
    param: "tool_choice.type",
  });
}

/** The flat form of this API → chat's, which templates print. */
function decodeFunctions(value: unknown, caps: RequestCaps): readonly ToolDefinition[] {
  if (value === undefined || value === null) return [];
  const list = requireList(value, "tools", caps.tools);
  if (list.length === 0) return [];
  const nested = list.map((entry, i) => {
    const { type, name, description, parameters, strict } = requireObject(entry, `tools.${i}`);
    if (requireString(type, `tools.${i}.type`) !== "function")
      throw new Fault("not_implemented", "Only tools of type function are supported by this server.", {
        param: `tools.${i}.type`,
      });
    const fields = { name, description, parameters, strict };
    const given = Object.entries(fields).filter(([, field]) => field !== undefined && field !== null);
    return { type, function: Object.fromEntries(given) };
  });
  try {
    return decodeTools(nested, caps);
  } catch (error) {
    if (!(error instanceof Fault) || error.param === undefined) throw error;
    throw invalid(error.param.replace(".function", ""), error.message.replace(".function", ""));
  }
}

function requireSome(tools: readonly ToolDefinition[]): readonly ToolDefinition[] {
  if (tools.length === 0) throw invalid("tool_choice", "When using `tool_choice`, `tools` must be set.");
  return tools;
}

function nameOf(value: JsonObject, param: string, tools: readonly ToolDefinition[]): string {
  const name = requireString(value["name"], `${param}.name`);
  if (!requireSome(tools).some((tool) => tool.name === name))
    throw invalid(param, "The tool specified in `tool_choice` does not match any of the specified `tools`.");
  return name;
}

/** The others are not shown to the model. */
function decodeAllowed(choice: JsonObject, tools: readonly ToolDefinition[], caps: RequestCaps): Tools {
  const { mode } = choice;
  if (mode !== "auto" && mode !== "required")
    throw invalid("tool_choice.mode", "tool_choice.mode must be auto or required.");
  const list = requireList(choice["tools"], "tool_choice.tools", caps.tools);
  const names = new Set(
    list.map((entry, i) => {
      const at = `tool_choice.tools.${i}`;
      return nameOf(requireObject(entry, at), at, tools);
    }),
  );
  const allowed = tools.filter(({ name }) => names.has(name));
  return { tools: allowed, choice: allowed.length > 0 ? mode : "none" };
}
