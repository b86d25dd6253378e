/**
 * Tool calls in a family's form as rules: nothing but calls, or text in which whatever begins like a call is one, so that
 * names are always those of the tools and arguments fit their schemas. Called by compile.ts.
 */
import type { CallableTool, CallForm } from "#core/structured.ts";
import { argumentRules } from "./arguments.ts";
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
  const first = sequence(written(form.begin + form.mark, form), rule("body"));
  const more = many && form.single !== true ? [moreCalls(form)] : [];
  rules.set("root", sequence(first, ...more, written(form.end, form)));
  return rules;
}

/** @throws GrammarError also for a form whose calls nothing tells from text */
export function textWithCallRules(tools: readonly CallableTool[], form: CallForm): Map<string, Expr> {
  if (form.mark === "" || form.tokens !== undefined)
    throw new GrammarError("calls in this form cannot be told from text");
  const rules = bodyRules(tools, form);
  const triggers = new Map([[form.mark, rule("body") as Expr]]);
  if (form.begin !== "")
    triggers.set(form.begin, sequence(literal(form.mark), rule("body"), moreCalls(form), literal(form.end)));
  rules.set("root", freeText(rules, "text", { triggers, excludes: [] }));
  return rules;
}

function moreCalls(form: CallForm): Expr {
  return repeat(sequence(written(form.joint + form.mark, form), rule("body")), 0, MOST_CALLS - 1);
}

/** The text, with the control tokens that stand in it. */
function written(text: string, form: Pick<CallForm, "tokens">): Expr {
  const [mark, id] = Object.entries(form.tokens ?? {}).find(([one]) => text.includes(one)) ?? [];
  if (mark === undefined || id === undefined) return literal(text);
  const at = text.indexOf(mark);
  return sequence(written(text.slice(0, at), form), { kind: "token", id }, written(text.slice(at + mark.length), form));
}

/** `body`: what stands behind the mark of a call. */
function bodyRules(tools: readonly CallableTool[], form: CallForm): Map<string, Expr> {
  const rules = new Map<string, Expr>();
  const bodies = tools.map(({ name, parameters }, at) => {
    return sequence(
      written(form.head, form),
      literal(form.name === "json" ? JSON.stringify(name) : name),
      ...(form.numbered ? [literal(":"), NUMBER] : []),
      written(form.middle, form),
      form.arguments === undefined
        ? embed(rules, schemaRules(parameters ?? ANY_OBJECT), String(at))
        : argumentRules(rules, String(at), form.arguments, parameters),
      written(form.close, form),
    );
  });
  rules.set("body", choice(...bodies));
  return rules;
}
