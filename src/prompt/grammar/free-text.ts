/**
 * Free text in which certain strings mean something: an end, a trigger of something else, or what may not come at all.
 *
 * A machine after Aho and Corasick over characters, one rule a state, so that the first string that completes decides,
 * however strings overlap. Rules call each other in last place only, which keeps the automaton's stack flat.
 * Called by structural-tag.ts.
 */
import { choice, EMPTY, type Expr, GrammarError, rule, sequence } from "./builder.ts";
import { ANY, pointsOf, without } from "./chars.ts";

/** States times characters that some string has: bounds time and memory. */
const MAX_TRANSITIONS = 100_000;

export interface FreeText {
  /** The text ends with one of these, which it includes; absent: it may end anywhere. */
  readonly ends?: readonly string[];
  /** What follows a string that has come, before the text goes on. */
  readonly triggers: ReadonlyMap<string, Expr>;
  readonly excludes: readonly string[];
  /** What stands before the text, and may be the beginning of one of these. */
  readonly behind?: string;
  /** What follows a trigger's own part in place of more text. */
  readonly afterTrigger?: Expr;
}

interface State {
  readonly next: Map<string, State>;
  readonly number: number;
  /** The longest other beginning of a string that ends here. */
  fail: State | undefined;
  /** Strings that are complete here, the shorter ones that they end with included. */
  readonly complete: string[];
}

/** Adds the rules of the text; returns what calls it. @param name of the rules, none other's @throws GrammarError */
export function freeText(rules: Map<string, Expr>, name: string, text: FreeText): Expr {
  const strings = [...new Set([...(text.ends ?? []), ...text.triggers.keys(), ...text.excludes])];
  const states = machine(strings);
  const alphabet = [...new Set(strings.flatMap((one) => [...one]))];
  if (states.length * alphabet.length > MAX_TRANSITIONS)
    throw new GrammarError("the strings that free text looks out for are too many or too long");
  const [root] = states as [State, ...State[]];
  refuseHidden(root, [...(text.ends ?? []), ...text.triggers.keys()]);
  const ruleOf = (state: State): Expr => rule(`${name}.${state.number}`);
  const meaning = (state: State): Expr | undefined => {
    const { complete } = state;
    if (complete.length === 0) return ruleOf(state);
    if (complete.some((one) => text.ends?.includes(one))) return EMPTY;
    if (complete.some((one) => text.excludes.includes(one))) return undefined;
    const parts = complete.flatMap((one) => text.triggers.get(one) ?? []);
    return sequence(choice(...parts), text.afterTrigger ?? ruleOf(root));
  };
  for (const state of states) {
    if (state.complete.length > 0) continue;
    const options: Expr[] = text.ends === undefined ? [EMPTY] : [];
    const taken = new Map<State, string>();
    for (const char of alphabet) {
      const target = step(state, char, root);
      if (target !== root) taken.set(target, (taken.get(target) ?? "") + char);
    }
    for (const [target, chars] of taken) {
      const after = meaning(target);
      if (after !== undefined) options.push(sequence({ kind: "chars", ranges: pointsOf(chars) }, after));
    }
    const others = without(ANY, pointsOf([...taken.values()].join("")));
    options.push(sequence({ kind: "chars", ranges: others }, ruleOf(root)));
    rules.set(`${name}.${state.number}`, choice(...options));
  }
  return ruleOf([...(text.behind ?? "")].reduce((at, char) => step(at, char, root), root));
}

function machine(strings: readonly string[]): State[] {
  const states: State[] = [];
  const add = (): State => {
    const state: State = { next: new Map(), number: states.length, fail: undefined, complete: [] };
    states.push(state);
    return state;
  };
  const root = add();
  for (const string of strings) {
    let at = root;
    for (const char of string) {
      const next = at.next.get(char) ?? add();
      at.next.set(char, next);
      at = next;
    }
    at.complete.push(string);
  }
  // Nearest the root first: what a state falls back to is shorter, and known already.
  const queue = [root];
  for (const state of queue) {
    for (const [char, next] of state.next) {
      next.fail = state === root ? root : step(state.fail as State, char, root);
      next.complete.push(...next.fail.complete);
      queue.push(next);
    }
  }
  return states;
}

function step(from: State, char: string, root: State): State {
  for (let at: State | undefined = from; at !== undefined; at = at.fail) {
    const next = at.next.get(char);
    if (next !== undefined) return next;
  }
  return root;
}

/** A string in which another one completes before its end would never come. */
function refuseHidden(root: State, strings: readonly string[]): void {
  for (const string of strings) {
    let at = root;
    for (const char of string) {
      const [first] = at.complete;
      if (first !== undefined)
        throw new GrammarError(`"${string}" would never come in free text, because "${first}" comes first`);
      at = at.next.get(char) as State;
    }
  }
}
