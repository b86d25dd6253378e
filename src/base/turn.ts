/**
 * The end of this turn of the event loop, for whoever gathers what comes in it.
 *
 * All who wait in one turn go on in one go, so that what they do next can go together, too. Under load that is put off for a
 * few turns, as long as each brings much more: what goes together costs a fraction of what goes alone, and what is done for
 * one behind the other finds its code in the processor's caches. Who comes alone waits for nobody. Callers: anyone.
 */

/** So much in one turn is worth another. */
const MUCH = 3;
const MOST_TURNS = 6;

let over: Promise<void> | undefined;
/** What was gathered since it was looked last. */
let came = 0;

/** Something has come that somebody gathers. */
export function gathered(): void {
  came++;
}

/** Resolves when whatever came in this turn has been heard, or in the next few ones. */
export function turnOver(): Promise<void> {
  over ??= new Promise((done) => {
    let turns = 0;
    came = 0;
    const look = (): void => {
      const much = came >= MUCH;
      came = 0;
      if (much && ++turns < MOST_TURNS) {
        setImmediate(look);
        return;
      }
      over = undefined;
      done();
    };
    setImmediate(look);
  });
  return over;
}
