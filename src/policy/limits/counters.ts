/**
 * Who is held by which counters: made of limits once, and the same call after call while nobody changes them, so that a
 * call builds no names and looks at no limit that it is not held by. Used inside policy/limits/.
 */
import { Recent } from "#base/recent.ts";
import type { Limits } from "#core/limits.ts";
import type { Entry } from "./ledger.ts";
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
  /** What is left of it is told; what is left of a model's says what others do. */
  readonly isShown: boolean;
  /** Its limit, as headers print it. */
  readonly limitText: string;
  /** The window that was asked for last. */
  #span: Span;

  constructor(subject: Subject, rule: Rule) {
    this.subject = subject;
    this.rule = rule;
    this.name = `${subject.kind} ${subject.id} ${rule.kind}`;
    this.long = rule.window !== "held" && rule.window !== "minute";
    this.isShown = subject.kind !== "model" && rule.window !== "held";
    this.limitText = String(rule.limit);
    this.#span = windowAt(rule.window, 0);
  }

  spanAt(at: number): Span {
    if (at < this.#span.start || at >= this.#span.end) this.#span = windowAt(this.rule.window, at);
    return this.#span;
  }
}

/** What a call takes when it comes: one of each, the same entries as long as the windows are. */
interface Place {
  readonly tenant: Holder;
  readonly entries: readonly Entry[];
  readonly start: number;
  readonly end: number;
}

/** Somebody with limits. */
export class Holder {
  readonly limits: Limits | undefined;
  readonly all: readonly Counter[];
  /** Those that hold a call's work; the others hold the call when it comes. */
  readonly work: readonly Counter[];
  /** The one that was asked for last. */
  #place: Place | undefined;

  constructor(limits: Limits | undefined, all: readonly Counter[]) {
    this.limits = limits;
    this.all = all;
    this.work = all.filter((counter) => !isPlace(counter));
  }

  /** Of a key and its tenant. */
  placeWith(tenant: Holder, at: number): readonly Entry[] {
    const known = this.#place;
    if (known !== undefined && known.tenant === tenant && at >= known.start && at < known.end) return known.entries;
    const counters = [...this.all, ...tenant.all].filter(isPlace);
    const entries = counters.map((counter) => ({ counter, amount: 1, most: 1, span: counter.spanAt(at) }));
    const start = Math.max(0, ...entries.map(({ span }) => span.start));
    const end = Math.min(...entries.map(({ span }) => span.end));
    this.#place = { tenant, entries, start, end };
    return entries;
  }
}

function isPlace({ rule: { measure } }: Counter): boolean {
  return measure === "requests" || measure === "calls";
}

/** Subjects of a kind that are kept. */
const MOST = 16_384;
const NONE = new Holder(undefined, []);

export class Holders {
  readonly #known: Readonly<Record<Subject["kind"], Recent<string, Holder>>> = {
    key: new Recent(MOST),
    tenant: new Recent(MOST),
    model: new Recent(MOST),
  };

  /** The same for the same limits. */
  of(kind: Subject["kind"], id: string, limits: Limits | undefined): Holder {
    if (limits === undefined) return NONE;
    const known = this.#known[kind];
    const holder = known.get(id);
    if (holder?.limits === limits) return holder;
    const subject = { kind, id };
    const made = new Holder(
      limits,
      rulesOf(limits).map((rule) => new Counter(subject, rule)),
    );
    known.set(id, made);
    return made;
  }
}
