/**
 * What is no exposition. Callers: the readers of this folder throw it; serving's upstreams tell of it.
 */
export class ExpositionError extends Error {
  /** From 1; undefined: not of one line. */
  readonly line: number | undefined;

  /** @param what is wrong, of a closed set of words: nothing of the text */
  constructor(what: string, line?: number) {
    super(what);
    this.name = "ExpositionError";
    this.line = line;
  }
}
