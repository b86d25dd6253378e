/**
 * In which form a request's calls are written, and so read. Called by _choice.ts and _structured.ts.
 */
import type { ChatCall } from "#core/calls.ts";
import type { ToolFamily } from "#core/parser-families.ts";
import type { ServedModel } from "./models.ts";

/** @returns undefined when nothing is read: no tools, or none may be called */
export function callFamily(model: ServedModel, { toolChoice, tools }: ChatCall): ToolFamily | undefined {
  if (toolChoice === "none" || tools.length === 0) return undefined;
  return toolChoice === "auto" ? model.parsers.tools : "hermes";
}
