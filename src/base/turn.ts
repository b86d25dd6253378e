/**
 * The end of this turn of the event loop, for whoever gathers what comes in it.
 *
 * All who wait in one turn go on in one go, so that what they do next can go together, too. Callers: anyone.
 */

let over: Promise<void> | undefined;

/** Resolves when whatever came in this turn has been heard. */
export function turnOver(): Promise<void> {
  over ??= new Promise((done) => {
    setImmediate(() => {
      over = undefined;
      done();
    });
  });
  return over;
}
