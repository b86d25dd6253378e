/**
 * Which batch is worked on next, and which leaves its place for it.
 *
 * Invariants (Wall: T85): what is open is bounded; a batch that only waits for a limit takes no place at work, and leaves
 * when its place is wanted; no tenant keeps two places more than one that wants another, and a tenant's first is wanted
 * from nobody as long as any is free. Pure. Private to runner.ts.
 */

/** A batch that is open: its files, and lines in memory. */
export interface Place {
  readonly tenant: string;
  /** Unix milliseconds. */
  readonly createdAt: number;
  /** Since when its lines have waited for limits or a full server, without an answer; undefined: some do not. */
  readonly waitsSince: number | undefined;
  /** Answers behind a line that has none: they have no row, and are asked for again when it leaves. */
  readonly unwritten: number;
  /** It is told to leave, and will. */
  readonly leaves: boolean;
}

/** A batch that wants a place. */
export interface Candidate {
  readonly tenant: string;
  /** It is cancelled or over its time: no line is run any more. */
  readonly ends: boolean;
}

const MOST_OPEN = 8;
const MOST_AT_WORK = 4;
/** What has waited for less goes on too soon to leave its place: to find where it was costs a reading of its files. */
const WAITS_MS = 10_000;

export type Move<C extends Candidate, P extends Place> =
  | { readonly begin: C; readonly leave?: never }
  | { readonly leave: P; readonly begin?: never };

/**
 * @param candidates who has wanted one longest first
 * @param now Unix milliseconds
 * @returns undefined: nothing changes until a place is left, or somebody else wants one
 */
export function nextMove<C extends Candidate, P extends Place>(
  open: readonly P[],
  candidates: readonly C[],
  now: number,
): Move<C, P> | undefined {
  const waiting = open.filter((one) => !one.leaves && now - (one.waitsSince ?? now) >= WAITS_MS);
  const atWork = open.filter((one) => !one.leaves && !waiting.includes(one));
  const own = (tenant: string): number => atWork.filter((one) => one.tenant === tenant).length;
  const full = open.length >= MOST_OPEN;
  // Its place is as good as free.
  if (full && open.some(({ leaves }) => leaves)) return undefined;
  for (const one of candidates.toSorted((a, b) => Number(b.ends) - Number(a.ends) || own(a.tenant) - own(b.tenant))) {
    const works = atWork.length < MOST_AT_WORK || own(one.tenant) === 0 || one.ends;
    if (works && !full) return { begin: one };
    const longest = works ? waiting.toSorted(waitedLonger)[0] : undefined;
    const most = atWork.filter(({ tenant }) => own(tenant) >= own(one.tenant) + 2);
    const leave = longest ?? most.toSorted((a, b) => own(b.tenant) - own(a.tenant) || b.createdAt - a.createdAt)[0];
    if (leave !== undefined) return { leave };
  }
  return undefined;
}

/** What loses nothing by it goes first. */
function waitedLonger(a: Place, b: Place): number {
  return Number(a.unwritten > 0) - Number(b.unwritten > 0) || (a.waitsSince ?? 0) - (b.waitsSince ?? 0);
}
