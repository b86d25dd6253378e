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

/** Grammars remembered, and bytes of their tables. */
const MAX_KEPT = 64;
const MAX_KEPT_BYTES = 32 * 1024 * 1024;

const kept = new Map<string, Constraint>();
let keptBytes = 0;

/**
 * @param seconds that compiling may take
 * @throws GrammarError in words for the client
 */
export function compileStructured(wanted: StructuredOutput, seconds = Number.POSITIVE_INFINITY): Constraint {
  const deadline = performance.now() + seconds * 1000;
  const key = createHash("sha256").update(JSON.stringify(wanted)).digest("base64");
  const found = kept.get(key) ?? { key, grammar: buildGrammar(rulesOf(wanted), "root", deadline) };
  forget(key);
  kept.set(key, found);
  keptBytes += bytesOf(found);
  for (const oldest of kept.keys()) {
    if (kept.size <= MAX_KEPT && keptBytes <= MAX_KEPT_BYTES) break;
    forget(oldest);
  }
  return found;
}

function forget(key: string): void {
  const found = kept.get(key);
  if (found !== undefined && kept.delete(key)) keptBytes -= bytesOf(found);
}

function bytesOf({ grammar }: Constraint): number {
  const { edges, edgeStart, empties, emptyStart, calls, callStart, ends } = grammar;
  return [edges, edgeStart, empties, emptyStart, calls, callStart, ends].reduce(
    (sum, { byteLength }) => sum + byteLength,
    0,
  );
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
