/**
 * Structural tags as rules (xgrammar's formats, docs "Structural Tag"): parts in order, and free text that turns into a
 * tag where a trigger comes.
 *
 * Text inside a tag ends with the first end of the tag that comes: so an end reaches down to the last part of what is
 * inside. Called by compile.ts.
 */
import type { Tag, TagFormat, TriggeredTags } from "#core/structural-tag.ts";
import { choice, EMPTY, type Expr, GrammarError, literal, optional, repeat, rule, sequence } from "./builder.ts";
import { ebnfRules } from "./ebnf.ts";
import { embed } from "./embed.ts";
import { type FreeText, freeText } from "./free-text.ts";
import { compileRegex } from "./regex.ts";
import { schemaRules } from "./schema.ts";

/** What has to follow a part, and belongs to it. */
type Ends = readonly string[] | undefined;

/** @returns rules whose start is `root` @throws GrammarError */
export function structuralTagRules(format: TagFormat): Map<string, Expr> {
  const compiler = new TagCompiler();
  compiler.rules.set("root", compiler.format(format, undefined));
  return compiler.rules;
}

class TagCompiler {
  readonly rules = new Map<string, Expr>();
  private count = 0;

  format(format: TagFormat, ends: Ends): Expr {
    switch (format.kind) {
      case "any_text":
        return this.text({ triggers: new Map(), excludes: format.excludes }, ends);
      case "sequence": {
        const last = format.elements.length - 1;
        return sequence(...format.elements.map((part, i) => this.format(part, i === last ? ends : undefined)));
      }
      case "or":
        return choice(...format.elements.map((part) => this.format(part, ends)));
      case "triggered_tags":
        return this.triggered(format, ends);
      default:
        return closed(this.bounded(format), ends);
    }
  }

  /** A part that knows by itself where it ends. */
  private bounded(
    format: Exclude<TagFormat, { readonly kind: "any_text" | "sequence" | "or" | "triggered_tags" }>,
  ): Expr {
    switch (format.kind) {
      case "const_string":
        return literal(format.value);
      case "json_schema":
        return embed(this.rules, schemaRules(format.schema), this.name("json"));
      case "regex":
        return compileRegex(format.pattern, { anchored: true, write: (ranges) => ({ kind: "chars", ranges }) });
      case "grammar":
        return embed(this.rules, ebnfRules(format.source), this.name("grammar"));
      case "repeat":
        return repeat(this.named("repeated", this.format(format.content, undefined)), format.min, format.max);
      case "tag":
        return sequence(literal(format.begin), this.inside(format));
      case "tags_with_separator":
        return this.separated(format);
    }
  }

  /** Content and end. An empty end is none. */
  private inside({ content, ends }: Tag): Expr {
    return ends.includes("") ? closed(this.format(content, undefined), ends) : this.format(content, ends);
  }

  private separated(format: Extract<TagFormat, { readonly kind: "tags_with_separator" }>): Expr {
    const one = this.named("tags", choice(...format.tags.map((tag) => this.bounded(tag))));
    const more = repeat(sequence(literal(format.separator), one), 0);
    const all = format.stopAfterFirst ? one : sequence(one, more);
    return format.atLeastOne ? all : optional(all);
  }

  private triggered(format: TriggeredTags, ends: Ends): Expr {
    const triggers = this.triggers(format);
    const first = choice(...[...triggers].map(([trigger, rest]) => sequence(literal(trigger), rest)));
    const end = closed(EMPTY, ends);
    if (format.stopAfterFirst && format.atLeastOne) return sequence(first, end);
    const unused = format.triggers.filter((trigger) => !triggers.has(trigger));
    const excludes = [...format.excludes, ...unused];
    const text = this.text({ triggers, excludes, ...(format.stopAfterFirst ? { afterTrigger: end } : {}) }, ends);
    return format.atLeastOne ? sequence(first, text) : text;
  }

  /** What follows each trigger that some tag begins with. */
  private triggers({ triggers, tags }: TriggeredTags): Map<string, Expr> {
    const options = new Map<string, Expr[]>();
    for (const tag of tags) {
      const [trigger, another] = new Set(triggers.filter((one) => tag.begin.startsWith(one)));
      if (trigger === undefined || another !== undefined)
        throw new GrammarError(`the tag "${tag.begin}" has to begin with exactly one of the triggers`);
      const rest = sequence(literal(tag.begin.slice(trigger.length)), this.inside(tag));
      options.set(trigger, [...(options.get(trigger) ?? []), rest]);
    }
    return new Map([...options].map(([trigger, rests]) => [trigger, this.named("trigger", choice(...rests))]));
  }

  private text(text: Omit<FreeText, "ends">, ends: Ends): Expr {
    return freeText(this.rules, this.name("text"), { ...text, ...(ends === undefined ? {} : { ends }) });
  }

  /** An expression that is used more than once is built once. */
  private named(kind: string, expr: Expr): Expr {
    const name = this.name(kind);
    this.rules.set(name, expr);
    return rule(name);
  }

  private name(kind: string): string {
    return `${kind} ${++this.count}`;
  }
}

function closed(expr: Expr, ends: Ends): Expr {
  return ends === undefined ? expr : sequence(expr, choice(...ends.map(literal)));
}
