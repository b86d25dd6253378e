/**
 * The ledger of one server: counters in memory.
 *
 * A take is one piece of synchronous code, so nothing comes between the look and the taking. What a restart must not
 * give anew (days and longer) is read at the first take of a subject in a window; minutes and what is held begin at
 * nothing. Memory follows what is in use: counters of ended windows go.
 */
import { type Entry, isLong, type Ledger, type Refused, type Spent, type Taken } from "./ledger.ts";

interface Cell {
  readonly start: number;
  readonly end: number;
  used: number;
  /** A take has had the rest, and may come to more. */
  inDoubt: boolean;
}

/** Takes between two sweeps, at least. */
const SWEEP_EVERY = 4096;
const NOTHING: readonly number[] = [];

export class MemoryLedger implements Ledger {
  readonly #cells = new Map<string, Cell>();
  readonly #reading = new Map<string, Promise<void>>();
  readonly #spent: Spent;
  #takes = 0;
  /** Of the latest entry: what ended before it is over. */
  #latest = 0;

  constructor(spent: Spent) {
    this.#spent = spent;
  }

  take(entries: readonly Entry[]): Taken | Refused | Promise<Taken | Refused> {
    this.#sweep();
    const unread = entries.filter((entry) => isLong(entry) && this.#current(entry) === undefined);
    if (unread.length === 0) return this.#take(entries);
    return Promise.all(unread.map((entry) => this.#read(entry))).then(() => this.take(entries));
  }

  async close(): Promise<void> {}

  /** Counters that are kept, for tests. */
  get size(): number {
    return this.#cells.size;
  }

  #take(entries: readonly Entry[]): Taken | Refused {
    const cells: Cell[] = [];
    const taken: number[] = [];
    for (let at = 0; at < entries.length; at++) {
      const entry = entries[at] as Entry;
      const cell = this.#cell(entry);
      const left = entry.rule.limit - cell.used;
      if (entry.most > left && (entry.amount > left || cell.inDoubt)) return { ok: false, at, used: cell.used };
      cells.push(cell);
      taken.push(Math.min(entry.most, left));
    }
    const doubted = cells.filter((_, at) => (taken[at] ?? 0) < (entries[at]?.most ?? 0));
    for (const cell of doubted) cell.inDoubt = true;
    const used = cells.map((cell, at) => {
      cell.used += taken[at] ?? 0;
      return cell.used;
    });
    let open = true;
    const settle = (kept = NOTHING): void => {
      if (!open) return;
      open = false;
      // The cell of the window that was taken from, whether or not it is still the current one.
      for (const [at, cell] of cells.entries()) cell.used += (kept[at] ?? 0) - (taken[at] ?? 0);
      for (const cell of doubted) cell.inDoubt = false;
    };
    return { ok: true, used, settle };
  }

  /** The counter of this window, or of a later one if the clock went back; undefined: there is none yet. */
  #current(entry: Entry): Cell | undefined {
    const cell = this.#cells.get(nameOf(entry));
    return cell !== undefined && cell.start >= entry.start ? cell : undefined;
  }

  #cell(entry: Entry): Cell {
    return this.#current(entry) ?? this.#begin(entry, 0);
  }

  #begin(entry: Entry, used: number): Cell {
    const { start, end } = entry;
    if (start > this.#latest) this.#latest = start;
    const cell = { start, end, used, inDoubt: false };
    this.#cells.set(nameOf(entry), cell);
    return cell;
  }

  #read(entry: Entry): Promise<void> {
    const name = `${nameOf(entry)} ${entry.start}`;
    const before = this.#reading.get(name);
    if (before !== undefined) return before;
    const reading = this.#spent(entry.subject, entry.rule.measure, entry.start)
      .then((used) => {
        if (this.#current(entry) === undefined) this.#begin(entry, used);
      })
      .finally(() => this.#reading.delete(name));
    this.#reading.set(name, reading);
    return reading;
  }

  #sweep(): void {
    if (++this.#takes < Math.max(SWEEP_EVERY, this.#cells.size / 2)) return;
    this.#takes = 0;
    for (const [name, { end, used }] of this.#cells)
      if (end <= this.#latest || (end === Number.POSITIVE_INFINITY && used === 0)) this.#cells.delete(name);
  }
}

function nameOf({ subject, rule }: Entry): string {
  return `${subject.kind} ${subject.id} ${rule.kind}`;
}
