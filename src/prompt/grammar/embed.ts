/**
 * Rules of one grammar inside another, under names of their own. Called by calls.ts and structural-tag.ts.
 */
import { type Expr, rule } from "./builder.ts";

/** Adds the rules; returns what their `root` has become. @param prefix none other's */
export function embed(into: Map<string, Expr>, rules: ReadonlyMap<string, Expr>, prefix: string): Expr {
  for (const [name, expr] of rules) into.set(`${prefix} ${name}`, renamed(expr, prefix));
  return rule(`${prefix} root`);
}

function renamed(expr: Expr, prefix: string): Expr {
  switch (expr.kind) {
    case "rule":
      return rule(`${prefix} ${expr.name}`);
    case "sequence":
      return { kind: "sequence", parts: expr.parts.map((part) => renamed(part, prefix)) };
    case "choice":
      return { kind: "choice", options: expr.options.map((option) => renamed(option, prefix)) };
    case "repeat":
      return { ...expr, of: renamed(expr.of, prefix) };
    default:
      return expr;
  }
}
