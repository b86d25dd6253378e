/**
 * Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011).
 *
 * Invariant: a draw depends on (seed, index) and on nothing else, so that a seeded sequence gets the same tokens
 * whatever else is in the batch, and again after its work was thrown away and redone. Called by draw.ts.
 */
import { randomBytes } from "node:crypto";

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** The upper 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const low = aLow * bLow;
  const cross1 = aLow * bHigh;
  const cross2 = aHigh * bLow;
  const middle = (low >>> 16) + (cross1 & 0xffff) + (cross2 & 0xffff);
  return (aHigh * bHigh + (cross1 >>> 16) + (cross2 >>> 16) + (middle >>> 16)) >>> 0;
}

/** One Philox4x32-10 block. `counter` [4] and `key` [2] hold unsigned 32-bit integers; returns [4] of them. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0) >>> 0;
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2) >>> 0;
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0;
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * Uniform in [0, 1), 53 bits.
 * @param seed any safe integer, negative ones too
 * @param index which token of the sequence is drawn, 0 for the first
 * @param attempt 0 for the first draw of the token; another draw is independent of it
 */
export function uniform(seed: number, index: number, attempt = 0): number {
  const [a, b] = philox([index >>> 0, attempt, 0, 0], [seed >>> 0, Math.floor(seed / 0x1_0000_0000) >>> 0]);
  return ((a >>> 5) * 0x400_0000 + (b >>> 6)) / 0x20_0000_0000_0000;
}

/** A seed for a sequence that brings none: 48 bits from the system's generator. */
export function randomSeed(): number {
  return randomBytes(6).readUIntBE(0, 6);
}
