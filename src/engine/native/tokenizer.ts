/**
 * The Tokenizer of a GGUF, in the HTTP process, over a vocabulary-only libllama model.
 *
 * Short texts are encoded in line. Long ones go to a process of their own (tokenizer-process.ts): they would hold the
 * event loop, and some of llama.cpp's pre-tokenisers run std::regex, which overflows the C stack on long runs and would
 * take the server with it. There a crash costs one call.
 */
import { Fault } from "#core/fault.ts";
import type { Tokenizer } from "#core/model.ts";
import { cutLiterals, encodeParts, literalPattern } from "./encode.ts";
import { openModel } from "./model.ts";
import { LongTextEncoder } from "./tokenizer-launcher.ts";
import { readVocabulary } from "./vocabulary.ts";

export interface TokenizerOptions {
  readonly modelPath: string;
  /** Texts longer than this many UTF-16 units are refused before anything looks at them. */
  readonly maxCharacters: number;
}

export interface OwnedTokenizer extends Tokenizer {
  /** Ends the helper process and frees the vocabulary. */
  close(): void;
}

/** Characters (UTF-16 units) that are encoded in line: about 2 ms at most, and far below what std::regex survives. */
export const INLINE_CHARACTERS = 8192;

/** @throws GgufError | PlatformError */
export function openTokenizer(options: TokenizerOptions): OwnedTokenizer {
  const model = openModel({ path: options.modelPath, vocabularyOnly: true });
  const vocabulary = readVocabulary(model);
  const pattern = literalPattern(vocabulary.specials.map((special) => special.text));
  const long = new LongTextEncoder(options.modelPath);
  const encode = async (text: string, parseSpecial: boolean): Promise<Int32Array> => {
    judge(text, options.maxCharacters);
    const parts = parseSpecial ? [text] : cutLiterals(text, pattern);
    if (text.length <= INLINE_CHARACTERS) return encodeParts(model.library, model.vocabulary, parts, parseSpecial);
    return long.encode(parts, parseSpecial);
  };
  return {
    vocabularySize: vocabulary.size,
    bos: vocabulary.bos,
    eos: vocabulary.eos,
    addsBos: vocabulary.addsBos,
    brackets: vocabulary.brackets,
    endOfTurn: vocabulary.endOfTurn,
    specials: vocabulary.specials,
    maxPieceBytes: vocabulary.maxPieceBytes,
    encodeText: (text) => encode(text, false),
    encodeTemplate: (text) => encode(text, true),
    piece: vocabulary.piece,
    spelling: vocabulary.spelling,
    close: () => {
      long.close();
      model.close();
    },
  };
}

function judge(text: string, maxCharacters: number): void {
  if (text.length > maxCharacters) {
    throw new Fault(
      "invalid_request",
      `the prompt has ${text.length} characters, which is more than this model's window can hold`,
      { param: "prompt" },
    );
  }
  if (!text.isWellFormed())
    throw new Fault("invalid_request", "the text has a lone surrogate, which no UTF-8 can carry");
}
