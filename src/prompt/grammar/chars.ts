/**
 * Sets of code points as ascending ranges that do not touch. Pure.
 */
export type Ranges = readonly (readonly [low: number, high: number])[];

export const MAX_POINT = 0x10_ffff;
export const ANY: Ranges = [[0, MAX_POINT]];

/** Sorts and joins. */
export function normal(ranges: Ranges): Ranges {
  const out: [number, number][] = [];
  for (const [low, high] of [...ranges].sort(([a], [b]) => a - b)) {
    const last = out[out.length - 1];
    if (last !== undefined && low <= last[1] + 1) last[1] = Math.max(last[1], high);
    else out.push([low, high]);
  }
  return out;
}

export function without(ranges: Ranges, taken: Ranges): Ranges {
  return intersection(ranges, complement(taken));
}

export function complement(ranges: Ranges): Ranges {
  const out: [number, number][] = [];
  let next = 0;
  for (const [low, high] of normal(ranges)) {
    if (low > next) out.push([next, low - 1]);
    next = high + 1;
  }
  if (next <= MAX_POINT) out.push([next, MAX_POINT]);
  return out;
}

export function intersection(a: Ranges, b: Ranges): Ranges {
  const out: [number, number][] = [];
  for (const [low, high] of normal(a)) {
    for (const [from, to] of normal(b)) {
      if (from <= high && to >= low) out.push([Math.max(low, from), Math.min(high, to)]);
    }
  }
  return out;
}

export function pointsOf(text: string): Ranges {
  return normal([...text].map((char) => [char.codePointAt(0) as number, char.codePointAt(0) as number] as const));
}
