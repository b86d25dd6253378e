/**
 * Marks of a rule table, one a rule: each is the digest of all rules down to it, in their order. The first rule that
 * matches decides, so a mark that a table still has says that whoever was made by its rule would be made by it again.
 * Pure. Callers: what makes principals by rules (tokens, certificates).
 */
import { hash } from "node:crypto";
import { stringifyJson } from "#base/json.ts";

/** @param of whose table it is */
export function ruleChain(of: string, rules: readonly object[]): readonly string[] {
  let mark = hash("sha256", of, "hex");
  return rules.map((rule) => {
    mark = hash("sha256", mark + stringifyJson(rule), "hex");
    return mark;
  });
}
