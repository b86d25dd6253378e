/**
 * Which engine gets a request: the one with the least work, where work that its prefix cache saves counts as done.
 *
 * What each engine has seen is remembered by hashes of prompt beginnings, at lengths that double, rooted in the cache
 * salt: tenants share no entry. It is a guess (the engine may have evicted it), wrong ones cost time and nothing else.
 * Invariants: at most MAX_BEGINNINGS are remembered, the least recently used go first; a match is worth at most what
 * `maxBonus` says, so that engines differ by no more than that and one request. Called by fleet.ts.
 */
import { randomBytes } from "node:crypto";

const MAX_BEGINNINGS = 32_768;
/** Longer beginnings say nothing more; the hashing of a prompt is bounded by it. */
const LONGEST = 16_384;
/** Prompt tokens that weigh as much as one open sequence. */
const TOKENS_PER_SEQUENCE = 512;
/** What any match is worth at least: a shared beginning stays where it is while loads differ by no more. */
const STICKINESS = 2;

export interface Load {
  /** Number of the engine. */
  readonly engine: number;
  /** Sequences open there. */
  readonly sequences: number;
  /** Tokens of prompts that are still to be computed there. */
  readonly promptTokens: number;
}

export interface RouterOptions {
  /** Whether engines keep what they computed. Without that only the load counts. */
  readonly affine: boolean;
  /** Tokens of a block: shorter beginnings cannot be shared. */
  readonly blockSize: number;
  /** Sequences that an engine runs at once. */
  readonly maxNumSeqs: number;
}

interface Beginning {
  readonly key: string;
  readonly tokens: number;
}

export class Router {
  readonly #options: RouterOptions;
  /** In order of use. */
  readonly #seen = new Map<string, number>();
  readonly #seed = randomBytes(8);
  #turn = 0;

  constructor(options: RouterOptions) {
    this.#options = options;
  }

  /** Entries remembered. */
  get size(): number {
    return this.#seen.size;
  }

  /** In sequences: what a match may be worth at most. */
  get maxBonus(): number {
    return Math.max(STICKINESS, this.#options.maxNumSeqs / 2);
  }

  /** Chooses among the loads (at least one) and remembers the choice. @param salt of the prefix cache */
  choose(prompt: Int32Array, salt: string, loads: readonly Load[]): number {
    const beginnings = this.#options.affine && loads.length > 1 ? this.#beginningsOf(prompt, salt) : [];
    const matched = this.#matches(beginnings);
    // Equals take turns.
    const start = this.#turn++ % loads.length;
    let best: { engine: number; cost: number } | undefined;
    for (let at = 0; at < loads.length; at++) {
      const load = loads[(start + at) % loads.length] as Load;
      const cost = weigh(load) - this.#bonus(matched.get(load.engine) ?? 0);
      if (best === undefined || cost < best.cost) best = { engine: load.engine, cost };
    }
    const { engine } = best as { engine: number };
    for (const { key } of beginnings) this.#remember(key, engine);
    return engine;
  }

  /** The engine has forgotten everything. */
  forget(engine: number): void {
    for (const [key, value] of this.#seen) if (value === engine) this.#seen.delete(key);
  }

  clear(): void {
    this.#seen.clear();
  }

  #bonus(tokens: number): number {
    return tokens === 0 ? 0 : Math.min(this.maxBonus, STICKINESS + tokens / TOKENS_PER_SEQUENCE);
  }

  /** By engine, the longest beginning of which it was the last to get it. */
  #matches(beginnings: readonly Beginning[]): ReadonlyMap<number, number> {
    const matched = new Map<number, number>();
    for (const { key, tokens } of beginnings) {
      const engine = this.#seen.get(key);
      if (engine !== undefined) matched.set(engine, tokens);
    }
    return matched;
  }

  #remember(key: string, engine: number): void {
    this.#seen.delete(key);
    this.#seen.set(key, engine);
    if (this.#seen.size <= MAX_BEGINNINGS) return;
    const { value: oldest } = this.#seen.keys().next();
    if (oldest !== undefined) this.#seen.delete(oldest);
  }

  /** At one, two, four … blocks. Two lanes of 32 bits, seeded: who can guess neither can only misroute himself. */
  #beginningsOf(prompt: Int32Array, salt: string): Beginning[] {
    let [a, b] = [this.#seed.readInt32LE(0), this.#seed.readInt32LE(4)];
    for (let at = 0; at < salt.length; at++) [a, b] = mix(a, b, salt.charCodeAt(at));
    const beginnings: Beginning[] = [];
    const end = Math.min(prompt.length, LONGEST);
    let next = this.#options.blockSize;
    for (let at = 0; at < end; at++) {
      [a, b] = mix(a, b, prompt[at] as number);
      if (at + 1 !== next) continue;
      beginnings.push({ key: `${a},${b}`, tokens: next });
      next *= 2;
    }
    return beginnings;
  }
}

function weigh({ sequences, promptTokens }: Load): number {
  return sequences + promptTokens / TOKENS_PER_SEQUENCE;
}

function mix(a: number, b: number, value: number): [number, number] {
  const x = Math.imul(a ^ value, 0x9e3779b1);
  const y = Math.imul(b ^ value, 0x85ebca6b);
  return [x ^ (x >>> 15) ^ y, y ^ (y >>> 13) ^ Math.imul(x, 0xc2b2ae35)];
}
