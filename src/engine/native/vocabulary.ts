/**
 * The model's vocabulary, copied out of libllama once: pieces as bytes, which tokens are special.
 *
 * After the copy nothing native is called to print a token; a spelling, which few ask for, is read while the model is
 * open. Used by tokenizer.ts, kernel.ts and probe.ts.
 */
import type { Brackets, SpecialToken } from "#core/model.ts";
import { type Library, type Pointer, TOKEN_CONTROL, TOKEN_UNKNOWN, TOKEN_USER_DEFINED } from "./library.ts";
import type { OpenModel } from "./model.ts";

export interface Vocabulary {
  readonly size: number;
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  readonly addsBos: boolean;
  readonly brackets: Brackets;
  readonly endOfTurn: ReadonlySet<number>;
  readonly specials: readonly SpecialToken[];
  readonly maxPieceBytes: number;
  piece(token: number, withControl: boolean): Uint8Array;
  /** While the model is open. */
  spelling(token: number): string;
}

/** LLAMA_VOCAB_TYPE_WPM of llama.h. */
const WORD_PIECE = 3;
const EMPTY = new Uint8Array(0);

export function readVocabulary(model: OpenModel): Vocabulary {
  const { library, vocabulary } = model;
  const size = library.vocabularySize(vocabulary);
  const pieces = new Pieces(size);
  const control = new Uint8Array(size);
  const endOfTurn = new Set<number>();
  const specials: SpecialToken[] = [];
  const spelling = (token: number): string => library.tokenText(vocabulary, token) ?? "";
  for (let token = 0; token < size; token++) {
    const attributes = library.tokenAttributes(vocabulary, token);
    pieces.add((out) => library.piece(vocabulary, token, out, out.length, 0, true));
    if (library.endsGeneration(vocabulary, token)) endOfTurn.add(token);
    const isControl = (attributes & (TOKEN_CONTROL | TOKEN_UNKNOWN)) !== 0;
    control[token] = isControl ? 1 : 0;
    if (!isControl && (attributes & TOKEN_USER_DEFINED) === 0) continue;
    const text = spelling(token);
    if (text !== "") specials.push({ id: token, text, control: isControl });
  }
  return {
    size,
    bos: existing(library.bos(vocabulary)),
    eos: existing(library.eos(vocabulary)),
    addsBos: library.addsBos(vocabulary),
    brackets: readBrackets(library, vocabulary),
    endOfTurn,
    specials,
    maxPieceBytes: Math.max(1, pieces.longest),
    piece: (token, withControl) => (control[token] === 1 && !withControl ? EMPTY : pieces.at(token)),
    spelling: (token) => (token >= 0 && token < size ? spelling(token) : ""),
  };
}

/** The bytes of all tokens one after another: an array a token would take fifty times the memory. */
class Pieces {
  /** Where each begins; one more for the end of the last. */
  readonly #starts: Uint32Array;
  #bytes: Uint8Array;
  #count = 0;
  longest = 0;

  constructor(size: number) {
    this.#starts = new Uint32Array(size + 1);
    this.#bytes = new Uint8Array(Math.max(256, size * 8));
  }

  /** @param read fills the array and says how many bytes it wrote; a negative answer is the size that is needed */
  add(read: (out: Uint8Array) => number): void {
    const start = this.#starts[this.#count] as number;
    let length = read(this.#bytes.subarray(start));
    if (length < 0) {
      const larger = new Uint8Array(2 * this.#bytes.length - length);
      larger.set(this.#bytes);
      this.#bytes = larger;
      length = Math.max(0, read(larger.subarray(start)));
    }
    this.longest = Math.max(this.longest, length);
    this.#starts[++this.#count] = start + length;
  }

  at(token: number): Uint8Array {
    return this.#bytes.subarray(this.#starts[token] ?? 0, this.#starts[token + 1] ?? 0);
  }
}

/** As llama_tokenize adds them; WordPiece has its own rule, whatever the header's switches say. */
function readBrackets(library: Library, vocabulary: Pointer): Brackets {
  const list = (token: number): number[] => (token < 0 ? [] : [token]);
  const separator = list(library.separator(vocabulary));
  if (library.vocabularyType(vocabulary) === WORD_PIECE)
    return { before: list(library.bos(vocabulary)), after: separator, between: separator };
  const end = library.addsEos(vocabulary) ? list(library.eos(vocabulary)) : [];
  return {
    before: library.addsBos(vocabulary) ? list(library.bos(vocabulary)) : [],
    after: end,
    between: library.addsSeparator(vocabulary) ? [...end, ...separator] : end,
  };
}

function existing(token: number): number | undefined {
  return token < 0 ? undefined : token;
}
