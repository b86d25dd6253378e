/**
 * In which form a request's calls are written, and so read. Called by _choice.ts and _structured.ts.
 */
import type { ChatCall } from "#core/calls.ts";
import type { Tokenizer } from "#core/model.ts";
import type { ToolFamily } from "#core/parser-families.ts";
import type { CallForm } from "#core/structured.ts";
import { TOOL_FORMS } from "#prompt/tools/families.ts";
import { HERMES_CALLS } from "#prompt/tools/hermes.ts";
import type { ServedModel } from "./models.ts";

/**
 * Calls that are forced are in the model's own form where a grammar can write it, and in Hermes' where it cannot.
 * @returns undefined when nothing is read: no tools, or none may be called
 */
export function callFamily(model: ServedModel, call: ChatCall): ToolFamily | undefined {
  const { toolChoice, tools } = call;
  if (toolChoice === "none" || tools.length === 0) return undefined;
  if (toolChoice === "auto") return model.parsers.tools;
  return heldForm(model, call) === undefined ? "hermes" : model.parsers.tools;
}

/** Of calls that are forced. */
export function forcedForm(model: ServedModel, call: ChatCall): CallForm {
  return heldForm(model, call) ?? HERMES_CALLS;
}

/**
 * The model's own form, if a grammar can write it: one over text, which lets no control token through. Names that the
 * form cannot quote are none of its names.
 */
export function heldForm({ parsers, tokenizer }: ServedModel, { tools }: ChatCall): CallForm | undefined {
  if (parsers.tools === undefined) return undefined;
  const { calls, marks } = TOOL_FORMS[parsers.tools];
  if (calls === undefined || needsControl(calls, marks, tokenizer)) return undefined;
  return calls.name === "json" || tools.every(({ name }) => /^[\w.-]+$/.test(name)) ? calls : undefined;
}

function needsControl(calls: CallForm, marks: readonly string[], { specials }: Tokenizer): boolean {
  const written = Object.values(calls).join("");
  return specials.some(({ text, control }) => control && marks.includes(text) && written.includes(text));
}
