/**
 * Histograms that are fed with every call: numbers in arrays, and no label is looked at where something is counted.
 * prom-client's own make several objects and texts an observation; what is printed is the same.
 *
 * Callers: whoever counts per call. Everything else takes base/metrics.ts.
 */
import type { Histogram, Registry } from "prom-client";

export interface TallyOptions<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly L[];
  /** Upper bounds, rising. */
  readonly buckets: readonly number[];
  readonly registry: Registry;
}

/** What was seen under one set of labels. */
export class Tally {
  readonly #bounds: readonly number[];
  /** In each bucket alone, and beyond the last. */
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Array<number>(bounds.length + 1).fill(0);
  }

  /** @param value finite */
  observe(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > (bounds[at] as number)) at++;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sum += value;
    this.#count++;
  }

  /** As Prometheus wants it: each bucket with those below it. */
  read(): { readonly upTo: readonly number[]; readonly sum: number; readonly count: number } {
    let below = 0;
    const upTo = this.#bounds.map((_, at) => {
      below += this.#counts[at] ?? 0;
      return below;
    });
    return { upTo, sum: this.#sum, count: this.#count };
  }
}

interface Printed {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** A histogram of tallies, by labels. */
export class TallyHistogram<L extends string> {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly aggregator = "sum";
  readonly labelNames: readonly L[];
  readonly #buckets: readonly number[];
  readonly #tallies: { readonly labels: Readonly<Record<L, string>>; readonly tally: Tally }[] = [];

  constructor({ name, help, labelNames, buckets, registry }: TallyOptions<L>) {
    this.name = name;
    this.help = help;
    this.labelNames = labelNames;
    this.#buckets = buckets;
    // A registry asks a metric for nothing but this; its types want prom-client's classes.
    registry.registerMetric(this as unknown as Histogram<L>);
  }

  /** Once for each set of labels, which is of closed lists: who counts keeps it. */
  tally(labels: Readonly<Record<L, string>>): Tally {
    const tally = new Tally(this.#buckets);
    this.#tallies.push({ labels, tally });
    return tally;
  }

  /** When somebody scrapes. */
  async get(): Promise<object> {
    const { name, help, type, aggregator } = this;
    return { name, help, type, aggregator, values: this.#tallies.flatMap((entry) => this.#print(entry)) };
  }

  #print({ labels, tally }: { readonly labels: Readonly<Record<L, string>>; readonly tally: Tally }): Printed[] {
    const { upTo, sum, count } = tally.read();
    const bucket = (le: string | number, value: number): Printed => ({
      metricName: `${this.name}_bucket`,
      labels: { le, ...labels },
      value,
    });
    return [
      ...this.#buckets.map((bound, at) => bucket(bound, upTo[at] ?? 0)),
      bucket("+Inf", count),
      { metricName: `${this.name}_sum`, labels, value: sum },
      { metricName: `${this.name}_count`, labels, value: count },
    ];
  }
}
