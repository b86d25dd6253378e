/**
 * Timers of calls, cheap to start and to end: nearly all of them end long before their time.
 *
 * Those of one duration stand in a row, in order of their times, behind one timer of Node's, which is not started and
 * stopped with each of them. Invariant: none runs early, and none later than Node's own would. They keep no process
 * alive: connections do. Private to counters.ts.
 */

/** Rows that are kept though they are empty: durations are settings, and few. */
const MOST_ROWS = 64;

/** A timer that was started. */
export interface Timer {
  /** May be called again, and when it has run. */
  end(): void;
}

class Entry implements Timer {
  readonly due: number;
  run: (() => void) | undefined;
  before: Entry | undefined;
  after: Entry | undefined;
  readonly #row: Row;

  constructor(due: number, run: () => void, row: Row) {
    this.due = due;
    this.run = run;
    this.before = undefined;
    this.after = undefined;
    this.#row = row;
  }

  end(): void {
    this.#row.remove(this);
  }
}

class Row {
  readonly #milliseconds: number;
  readonly #timers: Timers;
  #first: Entry | undefined;
  #last: Entry | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(milliseconds: number, timers: Timers) {
    this.#milliseconds = milliseconds;
    this.#timers = timers;
  }

  get empty(): boolean {
    return this.#first === undefined;
  }

  add(run: () => void): Timer {
    const entry = new Entry(performance.now() + this.#milliseconds, run, this);
    this.#timers.open++;
    entry.before = this.#last;
    if (this.#last === undefined) this.#first = entry;
    else this.#last.after = entry;
    this.#last = entry;
    if (this.#timer === undefined) this.#arm(this.#milliseconds);
    return entry;
  }

  remove(entry: Entry): void {
    if (entry.run === undefined) return;
    entry.run = undefined;
    this.#timers.open--;
    const { before, after } = entry;
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    // What is old and gone would keep what is young for the collector of the young, and that the next.
    entry.before = undefined;
    entry.after = undefined;
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(milliseconds: number): void {
    this.#timer = setTimeout(() => this.#fire(), Math.max(1, Math.ceil(milliseconds)));
    this.#timer.unref();
  }

  #fire(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (let entry = this.#first; entry !== undefined && entry.due <= now; entry = this.#first) {
      const { run } = entry;
      this.remove(entry);
      run?.();
    }
    if (this.#first !== undefined && this.#timer === undefined) this.#arm(this.#first.due - now);
  }
}

export class Timers {
  /** Those that have neither run nor been ended. */
  open = 0;
  readonly #rows = new Map<number, Row>();

  after(milliseconds: number, run: () => void): Timer {
    let row = this.#rows.get(milliseconds);
    if (row === undefined) {
      if (this.#rows.size >= MOST_ROWS) this.#tidy();
      row = new Row(milliseconds, this);
      this.#rows.set(milliseconds, row);
    }
    return row.add(run);
  }

  #tidy(): void {
    for (const [milliseconds, row] of this.#rows)
      if (row.empty) {
        row.close();
        this.#rows.delete(milliseconds);
      }
  }
}
