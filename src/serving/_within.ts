/**
 * A wait with an end, for work that goes on whether anybody waits for it or not. Used by what operators ask for.
 */
export async function within<T>(work: Promise<T>, limitMs: number, late: () => Error): Promise<T> {
  const timeout = Promise.withResolvers<never>();
  const timer = setTimeout(() => timeout.reject(late()), limitMs);
  try {
    return await Promise.race([work, timeout.promise]);
  } finally {
    clearTimeout(timer);
  }
}
