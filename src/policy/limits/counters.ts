/**
 * Who is held by which counters: made of limits once, and the same call after call while nobody changes them, so that a
 * call builds no names and looks at no limit that it is not held by. Used inside policy/limits/.
 */
import { Recent } from "#base/recent.ts";
import type { Limits } from "#core/limits.ts";
import { type Rule, rulesOf, type Subject } from "./rules.ts";
import { type Span, windowAt } from "./windows.ts";

/** A rule of somebody. */
export class Counter {
  readonly subject: Subject;
  readonly rule: Rule;
  /** Among all counters; without its window. */
  readonly name: string;
  /** It has a memory beyond the process. */
  readonly long: boolean;
  /** The window that was asked for last. */
  #span: Span;

  constructor(subject: Subject, rule: Rule) {
    this.subject = subject;
    this.rule = rule;
    this.name = `${subject.kind} ${subject.id} ${rule.kind}`;
    this.long = rule.window !== "held" && rule.window !== "minute";
    this.#span = windowAt(rule.window, 0);
  }

  spanAt(at: number): Span {
    if (at < this.#span.start || at >= this.#span.end) this.#span = windowAt(this.rule.window, at);
    return this.#span;
  }
}

interface Holder {
  readonly limits: Limits;
  readonly counters: readonly Counter[];
}

/** Subjects of a kind that are kept. */
const MOST = 16_384;
const NONE: readonly Counter[] = [];

export class Holders {
  readonly #known: Readonly<Record<Subject["kind"], Recent<string, Holder>>> = {
    key: new Recent(MOST),
    tenant: new Recent(MOST),
    model: new Recent(MOST),
  };

  /** The same list for the same limits. */
  countersOf(kind: Subject["kind"], id: string, limits: Limits | undefined): readonly Counter[] {
    if (limits === undefined) return NONE;
    const known = this.#known[kind];
    const holder = known.get(id);
    if (holder?.limits === limits) return holder.counters;
    const subject = { kind, id };
    const counters = rulesOf(limits).map((rule) => new Counter(subject, rule));
    known.set(id, { limits, counters });
    return counters;
  }
}
