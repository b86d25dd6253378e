/**
 * The words in which serving says what a call is about to use and what it used. policy/ keeps the books.
 */
import type { Usage } from "./calls.ts";

/** What a piece of work can cost at most, known before any of it is done; or about, and then `atMost`. */
export interface Work {
  /** First served name of the model or adapter. */
  readonly model: string;
  /** Tokens of all prompts together. */
  readonly promptTokens: number;
  /** Tokens of all answers together, at most; 0 where nothing is generated. */
  readonly completionTokens: number;
  /** Where those are guesses: no fewer than there can be. */
  readonly atMost?: { readonly promptTokens: number; readonly completionTokens: number };
  /** Engine sequences. */
  readonly sequences: number;
}

export interface Reservation {
  /**
   * The work is over, whatever ended it: books what was used, gives the rest back. Resolves once the booking survives
   * the process. The first call counts. Who reserves settles, on every path.
   */
  settle(used: Usage): Promise<void>;
}

/** Nothing was used, or it was lost by a fault of the server, which nobody pays for. */
export const NO_USAGE: Usage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };

export interface Meter {
  /**
   * Takes the work out of every limit that holds, all or nothing. A call may reserve several times.
   * @throws Fault rate_limited
   */
  reserve(work: Work): Reservation | Promise<Reservation>;
}

const UNCOUNTED: Reservation = { settle: async () => {} };
/** Of a caller whose use is not counted: the server's own first question, tests. */
export const UNMETERED: Meter = { reserve: () => UNCOUNTED };
