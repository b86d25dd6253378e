/**
 * Who wrote which part of a text: the template (trusted) or the client.
 *
 * Invariant: what nobody has vouched for is the client's. Only template literals, the bos and eos spellings, the
 * well-known role names and exact concatenations of these are ever marked as the template's.
 * Callers: the template interpreter, which keeps the runs, and encode.ts, which reads them.
 */

/**
 * Lengths in UTF-16 units of alternating runs that cover the text: the client's first (it may be 0), then the
 * template's, then the client's, and so on.
 */
export type Runs = readonly number[];

export class RunBuilder {
  private readonly lengths: number[] = [0];

  add(length: number, trusted: boolean): void {
    if (length === 0) return;
    const last = this.lengths.length - 1;
    if ((last & 1) === (trusted ? 1 : 0)) this.lengths[last] = (this.lengths[last] as number) + length;
    else this.lengths.push(length);
  }

  append(runs: Runs): void {
    for (let i = 0; i < runs.length; i++) this.add(runs[i] as number, (i & 1) === 1);
  }

  runs(): Runs {
    return this.lengths;
  }
}

export function clientRuns(length: number): Runs {
  return [length];
}

export function trustedRuns(length: number): Runs {
  return [0, length];
}

export function isTrusted(runs: Runs): boolean {
  return runs.length === 2 && runs[0] === 0;
}

/** The runs of `text.slice(start, end)`. */
export function sliceRuns(runs: Runs, start: number, end: number): Runs {
  const builder = new RunBuilder();
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    const next = at + (runs[i] as number);
    builder.add(Math.max(0, Math.min(next, end) - Math.max(at, start)), (i & 1) === 1);
    at = next;
  }
  return builder.runs();
}
