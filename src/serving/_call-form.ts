/**
 * In which form a request's calls are written, and so read. Called by _choice.ts and _structured.ts.
 */
import type { ChatCall } from "#core/calls.ts";
import type { Tokenizer } from "#core/model.ts";
import type { ToolFamily } from "#core/parser-families.ts";
import type { CallForm } from "#core/structured.ts";
import { canWrite } from "#prompt/grammar/arguments.ts";
import { TOOL_FORMS } from "#prompt/tools/families.ts";
import { HERMES_CALLS } from "#prompt/tools/hermes.ts";
import type { ServedModel } from "./models.ts";

/**
 * Calls that are forced are in the model's own form where the tools can be written in it, and in Hermes' where they cannot.
 * @returns undefined when nothing is read: no tools, or none may be called
 */
export function callFamily(model: ServedModel, call: ChatCall): ToolFamily | undefined {
  const { toolChoice, tools } = call;
  if (toolChoice === "none" || tools.length === 0) return undefined;
  if (toolChoice === "auto") return model.parsers.tools;
  return ownForm(model, call) === undefined ? "hermes" : model.parsers.tools;
}

/** Of calls that are forced. */
export function forcedForm(model: ServedModel, call: ChatCall): CallForm {
  return ownForm(model, call) ?? HERMES_CALLS;
}

/**
 * The model's own form for calls of its own choice: one whose marks are text, since only those are told from text. What a
 * form cannot write, a name, an argument, is held in none.
 */
export function heldForm(model: ServedModel, call: ChatCall): CallForm | undefined {
  const form = ownForm(model, call);
  return form?.tokens === undefined ? form : undefined;
}

function ownForm({ parsers, tokenizer }: ServedModel, { tools }: ChatCall): CallForm | undefined {
  if (parsers.tools === undefined) return undefined;
  const { calls, older, marks } = TOOL_FORMS[parsers.tools];
  const has = (mark: string): boolean => tokenizer.specials.some(({ text }) => text === mark);
  const form = older === undefined || has(older.without) || !marks.some(has) ? calls : older.calls;
  const writable = tools.every(
    (tool) => isName(form, tool.name) && canWrite(form.arguments, { ...NO_PARAMETERS, ...tool }),
  );
  const controls = tokenizer.specials.filter(({ control, text }) => control && marks.includes(text));
  // Values are told from tags as text.
  const tags = form.arguments?.kind === "tagged" ? Object.values(form.arguments).join("") : "";
  if (controls.some(({ text }) => tags.includes(text))) return undefined;
  return writable ? withTokens(form, marks, tokenizer) : undefined;
}

const NO_PARAMETERS = { parameters: undefined };

/** Names that a form cannot quote are none of its names. */
function isName({ name }: CallForm, wanted: string): boolean {
  return name === "json" || /^[\w.-]+$/.test(wanted);
}

/** Marks that are control tokens are written as those. */
function withTokens(form: CallForm, marks: readonly string[], { specials }: Tokenizer): CallForm {
  const { begin, mark, head, middle, close, joint, end } = form;
  const text = [begin, mark, head, middle, close, joint, end].join("\0");
  const tokens = specials.filter((one) => one.control && marks.includes(one.text) && text.includes(one.text));
  return tokens.length === 0 ? form : { ...form, tokens: Object.fromEntries(tokens.map((one) => [one.text, one.id])) };
}
