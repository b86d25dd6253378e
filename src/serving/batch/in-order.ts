/**
 * Work on many things, several at once, with the results in the order of the things.
 *
 * Invariants: never more than `width` at work; never more than `ahead` begun and not yet given out, so that one slow
 * piece bounds what is held behind it.
 */
export interface Widths {
  readonly width: number;
  readonly ahead: number;
}

/**
 * Ends without waiting for what is at work when its reader stops; whoever stops it ends that work.
 * @throws what `work` throws
 */
export async function* inOrder<T, R>(
  things: AsyncIterable<T>,
  { width, ahead }: Widths,
  work: (thing: T) => Promise<R>,
): AsyncGenerator<R> {
  const source = things[Symbol.asyncIterator]();
  const begun: { result?: PromiseSettledResult<R> }[] = [];
  let [busy, exhausted] = [0, false];
  let wake = (): void => {};
  const begin = (thing: T): void => {
    const piece: (typeof begun)[number] = {};
    begun.push(piece);
    busy++;
    const settle = (result: PromiseSettledResult<R>): void => {
      piece.result = result;
      busy--;
      wake();
    };
    work(thing).then(
      (value) => settle({ status: "fulfilled", value }),
      (reason: unknown) => settle({ status: "rejected", reason }),
    );
  };
  try {
    for (;;) {
      const first = begun[0]?.result;
      if (first !== undefined) {
        begun.shift();
        if (first.status === "rejected") throw first.reason;
        yield first.value;
      } else if (!exhausted && busy < width && begun.length < ahead) {
        const next = await source.next();
        if (next.done) exhausted = true;
        else begin(next.value);
      } else if (begun.length === 0) return;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    await source.return?.();
  }
}
