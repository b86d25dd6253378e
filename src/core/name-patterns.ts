/**
 * Names against patterns with `*` (any characters, none too) and `?` (one). Linear in name × pattern, whatever both
 * spell: no regular expression is built from what somebody wrote.
 */
import type { Named, NamePatterns, Principal } from "./principal.ts";

/** Whether a principal may use what has this name: by its own lists, and by its tenant's. */
export function mayUse({ reach, within }: Pick<Principal, "reach" | "within">, what: Named, name: string): boolean {
  return matchesAny(reach[what], name) && matchesAny(within?.[what], name);
}

/** @param patterns absent: everything matches */
export function matchesAny(patterns: NamePatterns | undefined, name: string): boolean {
  return patterns === undefined || patterns.some((pattern) => matches(pattern, name));
}

/** Case counts. Compared by UTF-16 units. */
export function matches(pattern: string, name: string): boolean {
  let p = 0;
  let n = 0;
  let star = -1;
  let resume = 0;
  while (n < name.length) {
    if (pattern[p] === "*") {
      star = p++;
      resume = n;
    } else if (p < pattern.length && (pattern[p] === "?" || pattern[p] === name[n])) {
      p++;
      n++;
    } else if (star >= 0) {
      // The last star takes one character more; earlier ones need not, as the first match of what follows them will do.
      p = star + 1;
      n = ++resume;
    } else return false;
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}
