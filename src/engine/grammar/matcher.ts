/**
 * What one sequence may say next under its grammar, token by token.
 *
 * A drawn token is checked by itself first; the mask over the vocabulary is made when a draw is refused or a cut
 * (top_k, top_p, min_p) needs it, and kept by place in the grammar, for all sequences that share the grammar.
 * Invariants: end-of-turn tokens are let through exactly where the text may end; before `after` was said everything is.
 * Called by engine.ts (making) and the sampler.
 */
import { CONTROL, type Constraint, controlBytes } from "#core/grammar.ts";
import { Automaton, DEAD } from "./automaton.ts";
import { setBit, TokenTable } from "./token-table.ts";

/** Grammars whose work is kept. */
const MAX_GRAMMARS = 64;
/** Masks kept for one grammar; each is a bit a token. */
const MAX_MASKS = 256;

interface Shared {
  readonly automaton: Automaton;
  readonly masks: Map<number, Uint32Array>;
  generation: number;
}

/** All grammars of an engine. */
export class Grammars {
  readonly #table: TokenTable;
  readonly #enders: readonly number[];
  readonly #shared = new Map<string, Shared>();

  constructor(pieces: readonly (Uint8Array | undefined)[], endOfTurn: readonly number[]) {
    this.#table = new TokenTable(
      pieces.map((piece, token) => (endOfTurn.includes(token) ? undefined : bytesOf(piece, token))),
    );
    this.#enders = endOfTurn;
  }

  matcher(constraint: Constraint): Matcher {
    return new Matcher(this.#table, this.#share(constraint), this.#enders, constraint.after ?? []);
  }

  /** Grammars whose work is kept now. */
  get size(): number {
    return this.#shared.size;
  }

  #share({ grammar, key }: Constraint): Shared {
    const found = this.#shared.get(key) ?? { automaton: new Automaton(grammar), masks: new Map(), generation: 0 };
    this.#shared.delete(key);
    this.#shared.set(key, found);
    for (const oldest of this.#shared.keys()) {
      if (this.#shared.size <= MAX_GRAMMARS) break;
      this.#shared.delete(oldest);
    }
    return found;
  }
}

/** A piece with the byte that begins control tokens is part of no text. */
function bytesOf(piece: Uint8Array | undefined, token: number): Uint8Array | undefined {
  if (piece === undefined) return controlBytes(token);
  return piece.includes(CONTROL) ? undefined : piece;
}

export class Matcher {
  readonly #table: TokenTable;
  readonly #shared: Shared;
  readonly #enders: readonly number[];
  readonly #after: readonly number[];
  /** Tokens said under the grammar, to find the place again after the automaton forgot it. */
  readonly #said: number[] = [];
  /** The last tokens before the grammar begins. */
  readonly #before: number[] = [];
  #begun = false;
  #place = 0;
  #generation: number;

  constructor(table: TokenTable, shared: Shared, enders: readonly number[], after: readonly number[]) {
    this.#table = table;
    this.#shared = shared;
    this.#enders = enders;
    this.#after = after;
    this.#generation = shared.automaton.generation;
  }

  /** Whether the grammar holds yet. */
  get active(): boolean {
    return this.#after.length === 0 || this.#begun;
  }

  /** @throws AmbiguityError */
  allows(token: number): boolean {
    if (!this.active) return true;
    this.#shared.automaton.refill();
    if (this.#enders.includes(token)) return this.#shared.automaton.isFinal(this.#current());
    return this.#table.step(this.#shared.automaton, this.#current(), token) !== DEAD;
  }

  /** Whether the mask of this place is made already. @throws AmbiguityError */
  get masked(): boolean {
    if (!this.active) return false;
    const place = this.#current();
    return this.#shared.masks.has(place);
  }

  /** Bit t is set where token t may come next; undefined where all may. @throws AmbiguityError */
  mask(): Uint32Array | undefined {
    if (!this.active) return undefined;
    this.#shared.automaton.refill();
    const place = this.#current();
    const { automaton, masks } = this.#shared;
    const known = masks.get(place);
    if (known !== undefined) return known;
    const mask = this.#table.mask(automaton, place);
    if (automaton.isFinal(place)) for (const token of this.#enders) setBit(mask, token);
    if (masks.size >= MAX_MASKS) masks.delete(masks.keys().next().value as number);
    masks.set(place, mask);
    return mask;
  }

  /** Takes note of a token that was drawn. @throws AmbiguityError */
  advance(token: number): void {
    if (!this.active) {
      this.#wait(token);
      return;
    }
    if (this.#enders.includes(token)) return;
    this.#shared.automaton.refill();
    this.#place = this.#table.step(this.#shared.automaton, this.#current(), token);
    this.#said.push(token);
  }

  /** Whether the text is whole and nothing can follow. */
  get finished(): boolean {
    if (!this.active) return false;
    const place = this.#current();
    return place === DEAD || (this.#shared.automaton.isFinal(place) && !this.#shared.automaton.canGoOn(place));
  }

  #wait(token: number): void {
    this.#before.push(token);
    if (this.#before.length > this.#after.length) this.#before.shift();
    this.#begun =
      this.#before.length === this.#after.length && this.#after.every((one, at) => this.#before[at] === one);
  }

  #current(): number {
    const { automaton, masks } = this.#shared;
    if (this.#shared.generation !== automaton.generation) {
      masks.clear();
      this.#shared.generation = automaton.generation;
    }
    if (this.#generation !== automaton.generation) this.#replay();
    if (automaton.isFull && this.#place !== DEAD) {
      this.#place = automaton.shrink(this.#place);
      this.#generation = automaton.generation;
      masks.clear();
      this.#shared.generation = automaton.generation;
    }
    return this.#place;
  }

  #replay(): void {
    const { automaton } = this.#shared;
    this.#generation = automaton.generation;
    this.#place = this.#said.reduce((place, token) => {
      automaton.refill();
      return this.#table.step(automaton, place, token);
    }, automaton.start);
  }
}
