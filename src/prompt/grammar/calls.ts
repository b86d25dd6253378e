/**
 * Tool calls in a family's form as rules: nothing but calls, or text in which whatever begins like a call is one, so that
 * names are always those of the tools and arguments fit their schemas. Called by compile.ts.
 */
import type { CallableTool, CallForm } from "#core/structured.ts";
import { choice, type Expr, GrammarError, literal, repeat, rule, sequence } from "./builder.ts";
import { embed } from "./embed.ts";
import { freeText } from "./free-text.ts";
import { schemaRules } from "./schema.ts";

const MOST_CALLS = 32;
/** Arguments of a function that says nothing about them. */
const ANY_OBJECT = { type: "object", additionalProperties: true };
const NUMBER: Expr = repeat({ kind: "chars", ranges: [[0x30, 0x39]] }, 1, 3);

/** One call, or one after the other. @throws GrammarError */
export function callRules(tools: readonly CallableTool[], many: boolean, form: CallForm): Map<string, Expr> {
  const rules = bodyRules(tools, form);
  const first = sequence(literal(form.begin + form.mark), rule("body"));
  rules.set("root", sequence(first, ...(many ? [moreCalls(form)] : []), literal(form.end)));
  return rules;
}

/** @throws GrammarError also for a form whose calls nothing tells from text */
export function textWithCallRules(tools: readonly CallableTool[], form: CallForm): Map<string, Expr> {
  if (form.mark === "") throw new GrammarError("calls in this form cannot be told from text");
  const rules = bodyRules(tools, form);
  const triggers = new Map([[form.mark, rule("body") as Expr]]);
  if (form.begin !== "")
    triggers.set(form.begin, sequence(literal(form.mark), rule("body"), moreCalls(form), literal(form.end)));
  rules.set("root", freeText(rules, "text", { triggers, excludes: [] }));
  return rules;
}

function moreCalls({ joint, mark }: CallForm): Expr {
  return repeat(sequence(literal(joint + mark), rule("body")), 0, MOST_CALLS - 1);
}

/** `body`: what stands behind the mark of a call. */
function bodyRules(tools: readonly CallableTool[], form: CallForm): Map<string, Expr> {
  const rules = new Map<string, Expr>();
  const bodies = tools.map(({ name, parameters }, at) => {
    return sequence(
      literal(form.head + (form.name === "json" ? JSON.stringify(name) : name)),
      ...(form.numbered ? [literal(":"), NUMBER] : []),
      literal(form.middle),
      embed(rules, schemaRules(parameters ?? ANY_OBJECT), String(at)),
      literal(form.close),
    );
  });
  rules.set("body", choice(...bodies));
  return rules;
}
