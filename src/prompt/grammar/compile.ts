/**
 * From what a client asked for to a Grammar: bounded in size, and remembered, because the same schema comes again.
 *
 * Called by serving.
 */
import { createHash } from "node:crypto";
import type { Constraint } from "#core/grammar.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { buildGrammar, choice, type Expr, literal, rule, sequence } from "./builder.ts";
import type { Ranges } from "./chars.ts";
import { ebnfRules } from "./ebnf.ts";
import { SHARED_RULES } from "./json.ts";
import { compileRegex } from "./regex.ts";
import { schemaRules } from "./schema.ts";

/** Grammars remembered, and bytes of their sources. */
const MAX_KEPT = 64;

const kept = new Map<string, Constraint>();

/** @throws GrammarError in words for the client */
export function compileStructured(wanted: StructuredOutput): Constraint {
  const key = createHash("sha256").update(JSON.stringify(wanted)).digest("base64");
  const found = kept.get(key) ?? { key, grammar: buildGrammar(rulesOf(wanted), "root") };
  kept.delete(key);
  kept.set(key, found);
  for (const oldest of kept.keys()) {
    if (kept.size <= MAX_KEPT) break;
    kept.delete(oldest);
  }
  return found;
}

function rulesOf(wanted: StructuredOutput): Map<string, Expr> {
  switch (wanted.kind) {
    case "json_schema":
      return schemaRules(wanted.schema);
    case "json_object":
      return new Map([...SHARED_RULES, ["root", rule("json.object")]]);
    case "regex":
      return new Map([["root", compileRegex(wanted.pattern, { anchored: true, write: plain })]]);
    case "choice":
      return new Map([["root", choice(...wanted.options.map(literal))]]);
    case "grammar":
      return ebnfRules(wanted.source);
    case "tool_calls":
      return toolRules(wanted.tools, wanted.many);
  }
}

/** Arguments of a function that says nothing about them. */
const ANY_OBJECT = { type: "object", additionalProperties: true };

const plain = (ranges: Ranges): Expr => ({ kind: "chars", ranges });

/** Calls as the Hermes parser reads them: one, or one after the other. */
function toolRules(
  tools: readonly { readonly name: string; readonly parameters: unknown }[],
  many: boolean,
): Map<string, Expr> {
  const rules = new Map<string, Expr>();
  const calls = tools.map(({ name, parameters }, at) => {
    for (const [of, expr] of schemaRules(parameters ?? ANY_OBJECT)) rules.set(`${at} ${of}`, renamed(expr, at));
    return sequence(
      literal(`<tool_call>\n{"name": ${JSON.stringify(name)}, "arguments": `),
      rule(`${at} root`),
      literal("}\n</tool_call>"),
    );
  });
  rules.set("call", choice(...calls));
  const more: Expr = { kind: "repeat", of: sequence(literal("\n"), rule("call")), min: 0, max: 31 };
  rules.set("root", many ? sequence(rule("call"), more) : rule("call"));
  return rules;
}

/** The same expression with the rules of schema number `at`. */
function renamed(expr: Expr, at: number): Expr {
  switch (expr.kind) {
    case "rule":
      return rule(`${at} ${expr.name}`);
    case "sequence":
      return { kind: "sequence", parts: expr.parts.map((part) => renamed(part, at)) };
    case "choice":
      return { kind: "choice", options: expr.options.map((option) => renamed(option, at)) };
    case "repeat":
      return { ...expr, of: renamed(expr.of, at) };
    default:
      return expr;
  }
}
