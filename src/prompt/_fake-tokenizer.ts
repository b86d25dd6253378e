/**
 * A byte-level tokenizer for tests: ids 0…255 are bytes, 256… are the given specials. Tests only.
 */
import type { SpecialToken, Tokenizer } from "#core/model.ts";

export interface FakeTokenizerOptions {
  /** Spellings; an entry that begins with "!" is user-defined, the others are control tokens. */
  readonly specials?: readonly string[];
  readonly bos?: string;
  readonly eos?: string;
  readonly addsBos?: boolean;
  /** Further ordinary tokens with these bytes, after the specials. */
  readonly pieces?: readonly Uint8Array[];
}

export function fakeTokenizer(options: FakeTokenizerOptions = {}): Tokenizer {
  const specials: SpecialToken[] = (options.specials ?? ["<|im_start|>", "<|im_end|>"]).map((spelling, index) => ({
    id: 256 + index,
    text: spelling.replace(/^!/, ""),
    control: !spelling.startsWith("!"),
  }));
  const pieces = options.pieces ?? [];
  const firstPiece = 256 + specials.length;
  const idOf = (text: string | undefined): number | undefined => specials.find((special) => special.text === text)?.id;
  const eos = idOf(options.eos);
  return {
    vocabularySize: firstPiece + pieces.length,
    bos: idOf(options.bos),
    eos,
    addsBos: options.addsBos ?? false,
    brackets: { before: [], after: [], between: [] },
    endOfTurn: new Set(eos === undefined ? [] : [eos]),
    specials,
    maxPieceBytes: 16,
    encodeText: async (text) => Int32Array.from(Buffer.from(text, "utf8")),
    encodeTemplate: () => Promise.reject(new Error("the prompt area finds special tokens itself")),
    piece: (token, withControl) => {
      if (token < 256) return Uint8Array.of(token);
      const special = specials[token - 256];
      if (special === undefined) return pieces[token - firstPiece] ?? new Uint8Array();
      return special.control && !withControl ? new Uint8Array() : new TextEncoder().encode(special.text);
    },
    spelling: (token) => specials[token - 256]?.text ?? `<0x${token.toString(16)}>`,
  };
}

/** Ids as text, with special tokens in guillemets, so that a test reads what became of them. */
export function show(tokenizer: Tokenizer, tokens: Iterable<number>): string {
  const parts: Buffer[] = [];
  for (const token of tokens) {
    const piece = Buffer.from(tokenizer.piece(token, true));
    parts.push(token < 256 ? piece : Buffer.from(`«${piece.toString()}»`));
  }
  return Buffer.concat(parts).toString();
}
