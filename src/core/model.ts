/**
 * A model as the rest of the server sees it: facts read from the GGUF header and its vocabulary.
 */
import type { PoolingInfo, TaskKind } from "./pool.ts";

export interface ModelInfo {
  /** general.architecture, e.g. "llama". */
  readonly architecture: string;
  /** general.name, for humans; may be absent. */
  readonly title?: string;
  /** Tokens a sequence may hold, prompt and output together (max_model_len). */
  readonly contextLength: number;
  /** What the model was trained for. */
  readonly trainedContext: number;
  readonly vocabularySize: number;
  /** Jinja source from tokenizer.chat_template. */
  readonly chatTemplate?: string;
  /** Parameters, for humans. */
  readonly parameters: number;
  /** Unix seconds: when the server began to serve it. */
  readonly createdAt: number;
  /** Of a model that is run for its numbers; absent: it generates. */
  readonly pooling?: PoolingInfo;
}

/** Text beyond so many characters a token of the window is refused unread, or cut: no real text is that dense. */
export const CHARACTERS_PER_TOKEN = 16;

/** What can be asked of the model. */
export function tasksOf(model: Pick<ModelInfo, "pooling">): readonly TaskKind[] {
  return model.pooling?.tasks ?? ["generate"];
}

/** A literal that the vocabulary treats as one token: control tokens and user-defined ones. */
export interface SpecialToken {
  readonly id: number;
  readonly text: string;
  /** Control tokens are dropped from output under skip_special_tokens; user-defined ones are kept. */
  readonly control: boolean;
}

/** The tokens that the model was trained to see around a text; each may be empty. */
export interface Brackets {
  readonly before: readonly number[];
  readonly after: readonly number[];
  /** Between the two texts of a pair (a query and a document). */
  readonly between: readonly number[];
}

/**
 * Text to token ids and back, by the model's own vocabulary.
 *
 * Wall: T04. `encodeText` never yields a special token, whatever the text spells; only `encodeTemplate`, whose
 * input is the template's own text, does.
 */
export interface Tokenizer {
  readonly vocabularySize: number;
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  /** Whether the model wants `bos` in front of every prompt (tokenizer.ggml.add_bos_token). */
  readonly addsBos: boolean;
  /** For pooling: [CLS] … [SEP] and kin. */
  readonly brackets: Brackets;
  /** Every token that ends a turn. */
  readonly endOfTurn: ReadonlySet<number>;
  readonly specials: readonly SpecialToken[];
  /** Bytes of the longest piece; text longer than this times the window cannot fit. */
  readonly maxPieceBytes: number;
  /** Plain text: no special token can come out. @throws Fault invalid_request (lone surrogate, too long) */
  encodeText(text: string): Promise<Int32Array>;
  /** Trusted text: special literals become their tokens. Never give it text from a client. */
  encodeTemplate(text: string): Promise<Int32Array>;
  /** The bytes that the token stands for; empty for control tokens unless `withControl`. */
  piece(token: number, withControl: boolean): Uint8Array;
  /** The vocabulary's own spelling (`Ġthe`), for /tokenize. */
  spelling(token: number): string;
}
