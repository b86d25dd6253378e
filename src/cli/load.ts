/**
 * The named loads of `castellan bench`: the same seed gives the same requests. Pure.
 */
export interface LoadRequest {
  readonly messages: readonly { readonly role: "user" | "assistant"; readonly content: string }[];
  readonly seed: number;
}

type Random = () => number;

const WORDS =
  "server engine token batch prompt cache key route model answer stream queue step sequence tenant scope limit memory kernel graph".split(
    " ",
  );

/** Name → how one request's messages are made. */
export const LOADS: Readonly<Record<string, (random: Random) => LoadRequest["messages"]>> = {
  /** One line. */
  short: (random) => [{ role: "user", content: words(random, 8) }],
  /** A long document and a question. */
  "long-prompt": (random) => [{ role: "user", content: `${words(random, 400)}. What was this about?` }],
  /** A few turns. */
  chat: (random) => [
    { role: "user", content: words(random, 20) },
    { role: "assistant", content: words(random, 30) },
    { role: "user", content: words(random, 15) },
  ],
  mixed: (random) => pick([LOADS["short"], LOADS["chat"], LOADS["long-prompt"]], random)?.(random) ?? [],
};

/** @param name a key of LOADS */
export function makeLoad(name: string, count: number, seed: number): LoadRequest[] {
  const random = generator(seed);
  return Array.from({ length: count }, (_, i) => ({ messages: LOADS[name]?.(random) ?? [], seed: seed + i }));
}

function words(random: Random, count: number): string {
  return Array.from({ length: count }, () => pick(WORDS, random)).join(" ");
}

function pick<T>(items: readonly T[], random: Random): T {
  return items[Math.floor(random() * items.length)] as T;
}

/** mulberry32: enough for a load. */
function generator(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
