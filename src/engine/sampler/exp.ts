/**
 * exp(x) for x ≤ 0, fast: a table of 16 steps an octave and a polynomial for the rest (relative error under 1e-8).
 *
 * The table index doubles as a bucket of a histogram: it grows as the logit falls, so `bucketAt` orders tokens
 * coarsely by likelihood without sorting them. Called by the sampler's inner loops only.
 */
const PER_OCTAVE = 16;
const OCTAVES = 80;

/** Buckets of `bucketAt`; the last one, below about 2^-80 of the likeliest, has weight 0. */
export const BUCKETS = PER_OCTAVE * OCTAVES;

/** (max - logit) / temperature, times this, is the real-valued table index: the "distance". */
export const BUCKETS_PER_NAT = PER_OCTAVE / Math.LN2;

const FARTHEST = BUCKETS - 2 ** -20;
const STEP = -Math.LN2 / PER_OCTAVE;
const TABLE = Float64Array.from({ length: BUCKETS }, (_, index) =>
  index < BUCKETS - 1 ? 2 ** (-index / PER_OCTAVE) : 0,
);

/**
 * 2^(-distance / 16), the weight of a token at that distance (≥ 0, Infinity too) from the likeliest.
 * The clamp by Math.min is what keeps the loops around it fast: it tells the compiler that the index fits.
 */
export function weightAt(distance: number): number {
  const near = Math.min(FARTHEST, distance);
  const index = near | 0;
  const rest = (near - index) * STEP;
  return (TABLE[index] as number) * (1 + rest * (1 + rest * (0.5 + rest * (1 / 6 + rest * (1 / 24)))));
}

/** The bucket of a token at that distance. */
export function bucketAt(distance: number): number {
  return Math.min(FARTHEST, distance) | 0;
}

/** exp(x), x ≤ 0. Below about -55 it is 0. */
export function expNegative(x: number): number {
  return weightAt(-x * BUCKETS_PER_NAT);
}
