/**
 * Whether a rule of a grammar can call itself before it has read anything: such a rule would never end.
 *
 * Linear in the grammar's size and without recursion, since who writes the grammar is a stranger. Called by builder.ts.
 */
import type { Grammar } from "#core/grammar.ts";

/** @param rules start states. @returns the start state of a rule that does; undefined: none does */
export function leftRecursive(grammar: Grammar, rules: readonly number[]): number | undefined {
  return cycle(rules, callsBeforeReading(grammar, rules));
}

/**
 * Start of a rule → starts of rules that it can call before it reads. A rule that may read nothing lets its caller go
 * on behind the call, so callers wait at each call for the callee to turn out so.
 */
function callsBeforeReading(grammar: Grammar, rules: readonly number[]): Map<number, Set<number>> {
  const called = new Map(rules.map((start) => [start, new Set<number>()]));
  const seen = new Map(rules.map((start) => [start, new Set<number>()]));
  const nullable = new Set<number>();
  /** Start of a callee → who goes on, and where, once it may read nothing. */
  const waiting = new Map<number, [rule: number, state: number][]>();
  const todo: [rule: number, state: number][] = rules.map((start) => [start, start]);
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const [rule, state] = next;
    const visited = seen.get(rule) as Set<number>;
    if (visited.has(state)) continue;
    visited.add(state);
    if (grammar.ends[state] === 1 && !nullable.has(rule)) {
      nullable.add(rule);
      for (const resumed of waiting.get(rule) ?? []) todo.push(resumed);
      waiting.delete(rule);
    }
    for (let i = grammar.emptyStart[state] as number; i < (grammar.emptyStart[state + 1] as number); i++)
      todo.push([rule, grammar.empties[i] as number]);
    for (let i = grammar.callStart[state] as number; i < (grammar.callStart[state + 1] as number); i++) {
      const [callee, behind] = [grammar.calls[i * 2] as number, grammar.calls[i * 2 + 1] as number];
      called.get(rule)?.add(callee);
      if (nullable.has(callee)) todo.push([rule, behind]);
      else {
        const waiters = waiting.get(callee) ?? [];
        waiters.push([rule, behind]);
        waiting.set(callee, waiters);
      }
    }
  }
  return called;
}

/** Depth first with a stack of its own. */
function cycle(rules: readonly number[], next: ReadonlyMap<number, ReadonlySet<number>>): number | undefined {
  const done = new Set<number>();
  const onPath = new Set<number>();
  for (const root of rules) {
    const path: { readonly rule: number; readonly rest: Iterator<number> }[] = [];
    const enter = (rule: number): void => {
      onPath.add(rule);
      path.push({ rule, rest: (next.get(rule) ?? new Set<number>()).values() });
    };
    if (!done.has(root)) enter(root);
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const { value, done: over } = top.rest.next();
      if (over) {
        onPath.delete(top.rule);
        done.add(top.rule);
        path.pop();
      } else if (onPath.has(value)) return value;
      else if (!done.has(value)) enter(value);
    }
  }
  return undefined;
}
