/**
 * Tool calls in the Hermes form as rules: nothing but calls, or text in which whatever begins like a call is one, so that
 * names are always those of the tools and arguments fit their schemas. Called by compile.ts.
 */
import { choice, EMPTY, type Expr, literal, rule, sequence } from "./builder.ts";
import { ANY, pointsOf, without } from "./chars.ts";
import { embed } from "./embed.ts";
import { schemaRules } from "./schema.ts";

export interface CallableTool {
  readonly name: string;
  readonly parameters: unknown;
}

const OPEN = "<tool_call>";
const CLOSE = "</tool_call>";
const MOST_CALLS = 32;
/** Arguments of a function that says nothing about them. */
const ANY_OBJECT = { type: "object", additionalProperties: true };

/** One call, or one after the other. @throws GrammarError */
export function callRules(tools: readonly CallableTool[], many: boolean): Map<string, Expr> {
  const rules = bodyRules(tools);
  const call = sequence(literal(OPEN), rule("body"));
  const more: Expr = { kind: "repeat", of: sequence(literal("\n"), call), min: 0, max: MOST_CALLS - 1 };
  rules.set("root", many ? sequence(call, more) : call);
  return rules;
}

/**
 * Rule `text` is where no beginning of OPEN stands; `open n` where n characters of it do.
 * @throws GrammarError
 */
export function textWithCallRules(tools: readonly CallableTool[]): Map<string, Expr> {
  const rules = bodyRules(tools);
  const other = (taken: string): Expr =>
    sequence({ kind: "chars", ranges: without(ANY, pointsOf(taken)) }, rule("text"));
  const begin = sequence(literal("<"), rule("open 1"));
  rules.set("text", choice(EMPTY, other("<"), begin));
  for (let n = 1; n < OPEN.length; n++) {
    const next = OPEN[n] as string;
    const goOn = n + 1 === OPEN.length ? sequence(rule("body"), rule("text")) : rule(`open ${n + 1}`);
    rules.set(`open ${n}`, choice(EMPTY, other(`<${next}`), begin, sequence(literal(next), goOn)));
  }
  rules.set("root", rule("text"));
  return rules;
}

/** `body`: what stands behind OPEN. */
function bodyRules(tools: readonly CallableTool[]): Map<string, Expr> {
  const rules = new Map<string, Expr>();
  const bodies = tools.map(({ name, parameters }, at) => {
    return sequence(
      literal(`\n{"name": ${JSON.stringify(name)}, "arguments": `),
      embed(rules, schemaRules(parameters ?? ANY_OBJECT), String(at)),
      literal(`}\n${CLOSE}`),
    );
  });
  rules.set("body", choice(...bodies));
  return rules;
}
