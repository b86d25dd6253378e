/**
 * From what a client asked for to a Grammar. Pure: the same source gives the same grammar, or the same refusal.
 *
 * Whatever is wrong with a source is a GrammarError (Wall: T26), also what is nested so deep that the stack would not do.
 * Called by compiler.ts, which bounds the time, and by tests.
 */
import { createHash } from "node:crypto";
import type { Constraint, Grammar } from "#core/grammar.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { buildGrammar, choice, type Expr, GrammarError, type GrammarSize, literal, rule } from "./builder.ts";
import { callRules, textWithCallRules } from "./calls.ts";
import type { Ranges } from "./chars.ts";
import { ebnfRules } from "./ebnf.ts";
import { COMPACT_SPACE, SHARED_RULES } from "./json.ts";
import { compileRegex } from "./regex.ts";
import { schemaRules } from "./schema.ts";
import { structuralTagRules } from "./structural-tag.ts";

/** @throws GrammarError in words for the client */
export function compileStructured(wanted: StructuredOutput): Constraint {
  return { key: keyOf(JSON.stringify(wanted)), grammar: grammarOf(wanted) };
}

/** Equal for equal sources. */
export function keyOf(source: string): string {
  return createHash("sha256").update(source).digest("base64");
}

/** @param most how large it may become; as large as any, if absent @throws GrammarError in words for the client */
export function grammarOf(wanted: StructuredOutput, most?: GrammarSize): Grammar {
  try {
    return buildGrammar(rulesOf(wanted), "root", most);
  } catch (error) {
    if (error instanceof RangeError) throw new GrammarError("it is nested too deep");
    throw error;
  }
}

function rulesOf(wanted: StructuredOutput): Map<string, Expr> {
  switch (wanted.kind) {
    case "json_schema":
      return new Map([...schemaRules(wanted.schema), ...(wanted.compact ? [COMPACT_SPACE] : [])]);
    case "json_object":
      return new Map([...SHARED_RULES, ...(wanted.compact ? [COMPACT_SPACE] : []), ["root", rule("json.object")]]);
    case "regex":
      return new Map([["root", compileRegex(wanted.pattern, { anchored: true, write: plain })]]);
    case "choice":
      return new Map([["root", choice(...wanted.options.map(literal))]]);
    case "grammar":
      return ebnfRules(wanted.source);
    case "structural_tag":
      return structuralTagRules(wanted.format);
    case "tool_calls":
      return callRules(wanted.tools, wanted.many, wanted.form);
    case "text_with_calls":
      return textWithCallRules(wanted.tools, wanted.form);
  }
}

const plain = (ranges: Ranges): Expr => ({ kind: "chars", ranges });
