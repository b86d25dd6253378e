/**
 * The vocabulary in the order of its bytes, so that a walk over all tokens shares the work on common beginnings.
 *
 * Control tokens stand for no text: a grammar lets one through only where it names it. Immutable after construction.
 * Called by matcher.ts.
 */
import { type Automaton, DEAD } from "./automaton.ts";

export class TokenTable {
  readonly #pieces: readonly (Uint8Array | undefined)[];
  /** Token ids by their bytes. */
  readonly #order: Int32Array;
  /** Bytes that the token at a place shares with the one before it. */
  readonly #shared: Int32Array;
  readonly #walk: Int32Array;

  /** @param pieces bytes of each token; undefined for one that stands for no text */
  constructor(pieces: readonly (Uint8Array | undefined)[]) {
    this.#pieces = pieces;
    const tokens = pieces.flatMap((piece, token) => (piece === undefined || piece.length === 0 ? [] : [token]));
    this.#order = Int32Array.from(tokens.sort((a, b) => Buffer.compare(this.#piece(a), this.#piece(b))));
    this.#shared = this.#order.map((token, at) =>
      at === 0 ? 0 : sharedLength(this.#piece(this.#order[at - 1] as number), this.#piece(token)),
    );
    this.#walk = new Int32Array(1 + tokens.reduce((longest, token) => Math.max(longest, this.#piece(token).length), 0));
  }

  /** Words of a bit mask over the vocabulary. */
  get words(): number {
    return Math.ceil(this.#pieces.length / 32);
  }

  /** Where a token leads; DEAD for one that stands for no text. */
  step(automaton: Automaton, configuration: number, token: number): number {
    const piece = this.#pieces[token];
    if (piece === undefined || piece.length === 0) return DEAD;
    let at = configuration;
    for (let i = 0; i < piece.length && at !== DEAD; i++) at = automaton.step(at, piece[i] as number);
    return at;
  }

  /** Bit t is set where token t can be read from the configuration. Shape: [words]. */
  mask(automaton: Automaton, configuration: number): Uint32Array {
    const mask = new Uint32Array(this.words);
    const walk = this.#walk;
    walk[0] = configuration;
    let dead = Number.POSITIVE_INFINITY; // tokens that share so many bytes with the last one are dead too
    for (let place = 0; place < this.#order.length; place++) {
      const shared = this.#shared[place] as number;
      if (shared >= dead) continue;
      const token = this.#order[place] as number;
      const piece = this.#piece(token);
      dead = Number.POSITIVE_INFINITY;
      for (let depth = shared; depth < piece.length; depth++) {
        const next = automaton.step(walk[depth] as number, piece[depth] as number);
        if (next === DEAD) {
          dead = depth + 1;
          break;
        }
        walk[depth + 1] = next;
      }
      if (dead > piece.length) setBit(mask, token);
    }
    return mask;
  }

  #piece(token: number): Uint8Array {
    return this.#pieces[token] as Uint8Array;
  }
}

export function setBit(mask: Uint32Array, token: number): void {
  mask[token >>> 5] = (mask[token >>> 5] as number) | (1 << (token & 31));
}

export function hasBit(mask: Uint32Array, token: number): boolean {
  return (((mask[token >>> 5] as number) >>> (token & 31)) & 1) === 1;
}

function sharedLength(a: Uint8Array, b: Uint8Array): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
