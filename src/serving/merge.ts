/**
 * Several streams as one, in the order in which their items come: all at once, or so many at a time, in their order.
 *
 * Backpressure: of every source at most one item is pulled ahead. When the consumer leaves, or a source fails, `stop`
 * is called first (it aborts the work, so that pending pulls end) and then every source is closed.
 */
export async function* merge<T>(
  sources: readonly AsyncIterable<T>[],
  stop: () => void,
  atOnce = Number.POSITIVE_INFINITY,
): AsyncGenerator<T> {
  const ready: Settled<T>[] = [];
  let wake: (() => void) | undefined;
  const settle = (settled: Settled<T>): void => {
    ready.push(settled);
    wake?.();
  };
  const pull = (iterator: AsyncIterator<T>): void => {
    iterator.next().then(
      (result) => settle({ iterator, result }),
      (error: unknown) => settle({ iterator, error }),
    );
  };
  const iterators = sources.map((source) => source[Symbol.asyncIterator]());
  const later = iterators.slice(atOnce);
  let open = iterators.length;
  try {
    for (const iterator of iterators.slice(0, atOnce)) pull(iterator);
    while (open > 0) {
      while (ready.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      for (const settled of ready.splice(0)) {
        if ("error" in settled) throw settled.error;
        if (settled.result.done === true) {
          open--;
          const next = later.shift();
          if (next !== undefined) pull(next);
        } else {
          yield settled.result.value;
          pull(settled.iterator);
        }
      }
    }
  } finally {
    if (open > 0) stop();
    await Promise.allSettled(iterators.map((iterator) => iterator.return?.()));
  }
}

type Settled<T> =
  | { readonly iterator: AsyncIterator<T>; readonly result: IteratorResult<T> }
  | { readonly iterator: AsyncIterator<T>; readonly error: unknown };
