/**
 * The ledger of one server: counters in memory.
 *
 * A take is one piece of synchronous code, so nothing comes between the look and the taking. What a restart must not
 * give anew (days and longer) is read at the first take of a subject in a window; minutes and what is held begin at
 * nothing. Memory follows what is in use: counters of ended windows go.
 */
import type { Entry, Ledger, Refused, Spent, Taken } from "./ledger.ts";

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

/** Takes from the cells as it is made. */
class CellsTaken implements Taken {
  readonly ok = true;
  readonly used: number[];
  readonly #entries: readonly Entry[];
  /** Of the windows that were taken from, whether or not they are still the current ones. */
  readonly #cells: readonly Cell[];
  /** By entry, where less was left than the most; undefined: all was taken of all. */
  #rests: Map<number, number> | undefined;
  #open = true;

  constructor(entries: readonly Entry[], cells: readonly Cell[]) {
    this.#entries = entries;
    this.#cells = cells;
    this.used = new Array<number>(cells.length);
    for (let at = 0; at < cells.length; at++) {
      const cell = cells[at] as Cell;
      const { most, counter } = entries[at] as Entry;
      const left = counter.rule.limit - cell.used;
      if (left < most) this.#takeRest(at, cell, left);
      else cell.used += most;
      this.used[at] = cell.used;
    }
  }

  #takeRest(at: number, cell: Cell, left: number): void {
    cell.inDoubt = true;
    cell.used += left;
    this.#rests ??= new Map();
    this.#rests.set(at, left);
  }

  settle(kept = NOTHING): void {
    if (!this.#open) return;
    this.#open = false;
    for (let at = 0; at < this.#cells.length; at++) {
      const cell = this.#cells[at] as Cell;
      const rest = this.#rests?.get(at);
      if (rest !== undefined) cell.inDoubt = false;
      cell.used += (kept[at] ?? 0) - (rest ?? (this.#entries[at] as Entry).most);
    }
  }
}

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
    const cells = new Array<Cell>(entries.length);
    for (let at = 0; at < entries.length; at++) {
      const entry = entries[at] as Entry;
      const cell = this.#current(entry) ?? (entry.counter.long ? undefined : this.#begin(entry, 0));
      if (cell === undefined) return this.#readAll(entries);
      const left = entry.counter.rule.limit - cell.used;
      if (entry.most > left && (entry.amount > left || cell.inDoubt)) return { ok: false, at, used: cell.used };
      cells[at] = cell;
    }
    return new CellsTaken(entries, cells);
  }

  async close(): Promise<void> {}

  /** Counters that are kept, for tests. */
  get size(): number {
    return this.#cells.size;
  }

  #unread(entry: Entry): boolean {
    return entry.counter.long && this.#current(entry) === undefined;
  }

  async #readAll(entries: readonly Entry[]): Promise<Taken | Refused> {
    await Promise.all(entries.filter((entry) => this.#unread(entry)).map((entry) => this.#read(entry)));
    return this.take(entries);
  }

  /** The counter of this window, or of a later one if the clock went back; undefined: there is none yet. */
  #current(entry: Entry): Cell | undefined {
    const cell = this.#cells.get(entry.counter.name);
    return cell !== undefined && cell.start >= entry.span.start ? cell : undefined;
  }

  #begin({ counter, span: { start, end } }: Entry, used: number): Cell {
    if (start > this.#latest) this.#latest = start;
    const cell = { start, end, used, inDoubt: false };
    this.#cells.set(counter.name, cell);
    return cell;
  }

  #read(entry: Entry): Promise<void> {
    const { counter, span } = entry;
    const name = `${counter.name} ${span.start}`;
    const before = this.#reading.get(name);
    if (before !== undefined) return before;
    const reading = this.#spent(counter.subject, counter.rule.measure, span.start)
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
