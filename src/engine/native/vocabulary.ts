/**
 * The model's vocabulary, copied out of libllama once: pieces as bytes, spellings, which tokens are special.
 *
 * After the copy nothing native is called to print a token. Used by tokenizer.ts.
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
  spelling(token: number): string;
}

/** LLAMA_VOCAB_TYPE_WPM of llama.h. */
const WORD_PIECE = 3;
const EMPTY = new Uint8Array(0);

export function readVocabulary(model: OpenModel): Vocabulary {
  const { library, vocabulary } = model;
  const size = library.vocabularySize(vocabulary);
  const pieces: Uint8Array[] = new Array(size);
  const spellings: string[] = new Array(size);
  const control = new Uint8Array(size);
  const endOfTurn = new Set<number>();
  const specials: SpecialToken[] = [];
  let maxPieceBytes = 1;
  for (let token = 0; token < size; token++) {
    const attributes = library.tokenAttributes(vocabulary, token);
    const piece = readPiece(library, vocabulary, token);
    const spelling = library.tokenText(vocabulary, token) ?? "";
    pieces[token] = piece;
    spellings[token] = spelling;
    maxPieceBytes = Math.max(maxPieceBytes, piece.length);
    if (library.endsGeneration(vocabulary, token)) endOfTurn.add(token);
    const isControl = (attributes & (TOKEN_CONTROL | TOKEN_UNKNOWN)) !== 0;
    control[token] = isControl ? 1 : 0;
    if ((isControl || (attributes & TOKEN_USER_DEFINED) !== 0) && spelling !== "")
      specials.push({ id: token, text: spelling, control: isControl });
  }
  return {
    size,
    bos: existing(library.bos(vocabulary)),
    eos: existing(library.eos(vocabulary)),
    addsBos: library.addsBos(vocabulary),
    brackets: readBrackets(library, vocabulary),
    endOfTurn,
    specials,
    maxPieceBytes,
    piece: (token, withControl) => (control[token] === 1 && !withControl ? EMPTY : (pieces[token] ?? EMPTY)),
    spelling: (token) => spellings[token] ?? "",
  };
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

/** A negative answer is the size that is needed. */
function readPiece(library: Library, vocabulary: Pointer, token: number): Uint8Array {
  let buffer = new Uint8Array(64);
  let length = library.piece(vocabulary, token, buffer, buffer.length, 0, true);
  if (length < 0) {
    buffer = new Uint8Array(-length);
    length = library.piece(vocabulary, token, buffer, buffer.length, 0, true);
  }
  return buffer.slice(0, Math.max(0, length));
}
