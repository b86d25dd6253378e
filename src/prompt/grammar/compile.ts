/**
 * From what a client asked for to a Grammar: bounded in size, and remembered, because the same schema comes again.
 *
 * Called by serving.
 */
import { createHash } from "node:crypto";
import type { Constraint } from "#core/grammar.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { buildGrammar, choice, type Expr, literal, rule } from "./builder.ts";
import { callRules, textWithCallRules } from "./calls.ts";
import type { Ranges } from "./chars.ts";
import { ebnfRules } from "./ebnf.ts";
import { SHARED_RULES } from "./json.ts";
import { compileRegex } from "./regex.ts";
import { schemaRules } from "./schema.ts";
import { structuralTagRules } from "./structural-tag.ts";

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
    case "structural_tag":
      return structuralTagRules(wanted.format);
    case "tool_calls":
      return callRules(wanted.tools, wanted.many);
    case "text_with_calls":
      return textWithCallRules(wanted.tools);
  }
}

const plain = (ranges: Ranges): Expr => ({ kind: "chars", ranges });
