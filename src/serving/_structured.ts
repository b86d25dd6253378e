/**
 * What the output has to look like, as the engine's constraint. Called by chat.ts and complete.ts.
 */
import type { ChatCall, OutputOptions } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { Constraint } from "#core/grammar.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { GrammarError } from "#prompt/grammar/builder.ts";
import { forcedForm, heldForm } from "./_call-form.ts";
import { thoughtEnd } from "./_thinking.ts";
import type { Serving } from "./context.ts";
import type { ServedModel } from "./models.ts";

/** Compiles within the caller's time. @throws GrammarError | Fault */
export type Grammars = { readonly compile: (wanted: StructuredOutput) => Promise<Constraint> };

/** @param prompt the prompt's text: where it has opened a thought, the grammar begins behind it @throws Fault */
export async function chatConstraint(
  call: ChatCall,
  model: ServedModel,
  prompt: string,
  grammars: Grammars,
): Promise<Constraint | undefined> {
  const wanted = forced(call, model);
  if (wanted !== undefined && call.output.structured !== undefined)
    throw invalid("tool_choice", "a forced tool_choice cannot be combined with a format of the output.");
  const asked =
    wanted === undefined ? await outputConstraint(call.output, grammars) : await compiled(wanted, "tools", grammars);
  const constraint = asked ?? (await heldCalls(call, model, grammars));
  const after = constraint === undefined ? undefined : await thoughtEnd(model, prompt);
  if (constraint === undefined || after === undefined) return constraint;
  // Held calls let text through, thoughts too; they need no border that might be missed.
  return asked === undefined && after.length > 1 ? constraint : { ...constraint, after };
}

/** @throws Fault invalid_request naming the field | overloaded */
export async function outputConstraint(output: OutputOptions, grammars: Grammars): Promise<Constraint | undefined> {
  const { structured, structuredField = "structured_outputs" } = output;
  return structured === undefined ? undefined : compiled(structured, structuredField, grammars);
}

function forced(call: ChatCall, model: ServedModel): StructuredOutput | undefined {
  const { toolChoice, tools, parallelToolCalls } = call;
  if (toolChoice === "none" || toolChoice === "auto") return undefined;
  const all = tools.map(({ name, parameters }) => ({ name, parameters }));
  const form = forcedForm(model, call);
  if (toolChoice === "required") return { kind: "tool_calls", tools: all, many: parallelToolCalls, form };
  return { kind: "tool_calls", tools: all.filter(({ name }) => name === toolChoice.name), many: false, form };
}

/**
 * Calls of the model's own choice are held to the tools. Nobody was promised that: where a schema cannot be followed, or
 * the model's form cannot be held, or nothing in it tells a call from text, or beams are searched, they are as the model
 * writes them.
 */
async function heldCalls(call: ChatCall, model: ServedModel, grammars: Grammars): Promise<Constraint | undefined> {
  const { toolChoice, tools, output } = call;
  if (toolChoice !== "auto" || !model.parsers.holdCalls || output.beam !== undefined) return undefined;
  const form = heldForm(model, call);
  if (form === undefined || form.mark === "") return undefined;
  try {
    return await grammars.compile({
      kind: "text_with_calls",
      tools: tools.map(({ name, parameters }) => ({ name, parameters })),
      form,
    });
  } catch (error) {
    if (error instanceof GrammarError) return undefined;
    throw error;
  }
}

async function compiled(wanted: StructuredOutput, field: string, grammars: Grammars): Promise<Constraint> {
  try {
    return await grammars.compile(wanted);
  } catch (error) {
    if (error instanceof GrammarError) throw invalid(field, `Invalid ${field}: ${error.message}.`);
    throw error;
  }
}

/** @param seconds that compiling may take for this caller */
export function grammarsFor({ grammars }: Pick<Serving, "grammars">, seconds: number): Grammars {
  return { compile: (wanted) => grammars.compile(wanted, seconds * 1000) };
}
