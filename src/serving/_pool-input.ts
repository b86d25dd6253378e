/**
 * Texts and token ids → sequences for a pooling model: the model's own tokens around them, truncation, window, sum.
 *
 * Invariant: what comes out is not empty, fits the window and lies in the vocabulary. Texts are read one after another,
 * with room for other calls in between. Called by pool.ts, score.ts and
 * _pair-input.ts.
 */
import type { Prompt } from "#core/calls.ts";
import { Fault, invalid } from "#core/fault.ts";
import { CHARACTERS_PER_TOKEN } from "#core/model.ts";
import type { PoolSource, Truncation } from "#core/pool-calls.ts";
import { bracketed, bracketSize } from "#prompt/brackets.ts";
import { encodeChat, encodeRendered } from "#prompt/encode.ts";
import type { Rendered } from "#prompt/template.ts";
import { promptFromIds } from "./_prompt.ts";
import type { ServedModel } from "./models.ts";

/** Characters that are read in one go. */
const CHARACTERS_AT_ONCE = 16_384;

export interface InputOptions {
  readonly model: ServedModel;
  readonly truncate: Truncation | undefined;
  /** Tokens that the inputs may have together (the cap poolingTokens). */
  readonly most: number;
  readonly signal: AbortSignal;
}

/** @throws Fault invalid_request naming the field | cancelled */
export async function encodeSource(source: PoolSource, options: InputOptions): Promise<readonly Int32Array[]> {
  if (source.kind === "chat") return [await encodeMessages(source, options)];
  const { prompts, field, addSpecialTokens, mostTokens } = source;
  const reader = new Reader(options);
  const inputs: Int32Array[] = [];
  for (const [at, prompt] of prompts.entries()) {
    const own = prompts.length === 1 ? field : `${field}.${at}`;
    const tokens = await encodeOne(prompt, { field: own, addSpecialTokens, reader });
    if (mostTokens !== undefined && tokens.length > mostTokens)
      throw invalid(own, `The input has ${tokens.length} tokens, more than max_tokens=${mostTokens}.`);
    reader.count(tokens.length, field);
    inputs.push(tokens);
  }
  return inputs;
}

async function encodeMessages(
  { messages, template }: Extract<PoolSource, { kind: "chat" }>,
  options: InputOptions,
): Promise<Int32Array> {
  const { tokenizer, template: own } = options.model;
  const { addSpecialTokens, ...input } = template;
  const { tokens } = await encodeChat(tokenizer, own, { messages, tools: [], ...input, addSpecialTokens: false });
  const reader = new Reader(options);
  const fitted = reader.fit(tokens, "messages", addSpecialTokens);
  reader.count(fitted.length, "messages");
  return fitted;
}

interface OneInput {
  readonly field: string;
  readonly addSpecialTokens: boolean;
  readonly reader: Reader;
}

async function encodeOne(prompt: Prompt, { field, addSpecialTokens, reader }: OneInput): Promise<Int32Array> {
  if (typeof prompt !== "string") return reader.fit(promptFromIds(prompt, field, reader.model), field, false);
  return reader.fit(await reader.text(prompt, field), field, addSpecialTokens);
}

/** What all inputs of one request are read with. */
export class Reader {
  readonly model: ServedModel;
  readonly #options: InputOptions;
  readonly #window: number;
  #characters = 0;
  #tokens = 0;

  constructor(options: InputOptions) {
    this.#options = options;
    this.model = options.model;
    this.#window = options.model.backend.model.contextLength;
    const { truncate } = options;
    if (truncate !== undefined && truncate.tokens > this.#window)
      throw invalid(
        truncate.field,
        `${truncate.field} value (${truncate.tokens}) is greater than max_model_len (${this.#window}).`,
      );
  }

  /**
   * A text's own tokens. One that is too long is refused before it is read, or cut where the rest would be cut anyway.
   * @param cut take the beginning of a text that is too long, whatever the request says of truncation
   * @throws Fault invalid_request | cancelled
   */
  text(text: string, field: string, cut = false): Promise<Int32Array> {
    return this.encode(this.readable(text, field, cut));
  }

  /** What of a text is read at all, as in `text`. @throws Fault invalid_request */
  readable(text: string, field: string, cut = false): string {
    const { truncate } = this.#options;
    const { tokenizer } = this.model;
    const most = this.#window * CHARACTERS_PER_TOKEN;
    const side = truncate?.side ?? (cut ? "right" : undefined);
    if (side === undefined && Buffer.byteLength(text) > this.#window * tokenizer.maxPieceBytes && text.length > most)
      throw this.tooLong(field, `at least ${this.#window + 1}`);
    return side === undefined || text.length <= most ? text : shortened(text, most, side);
  }

  /** @param written a client's text, or what a template made of some. @throws Fault invalid_request | cancelled */
  async encode(written: string | Rendered): Promise<Int32Array> {
    const { tokenizer } = this.model;
    this.#characters += typeof written === "string" ? written.length : written.text.length;
    if (this.#characters > CHARACTERS_AT_ONCE) {
      this.#characters = 0;
      await new Promise(setImmediate);
    }
    if (this.#options.signal.aborted) throw new Fault("cancelled", "The request was cancelled.");
    return typeof written === "string" ? tokenizer.encodeText(written) : encodeRendered(tokenizer, written);
  }

  /** Cuts as the request says and puts the model's tokens around it. @throws Fault invalid_request */
  fit(tokens: Int32Array, field: string, specials: boolean): Int32Array {
    const { brackets } = this.model.tokenizer;
    const around = specials ? bracketSize(brackets) : 0;
    const kept = this.#cut(tokens, around, field);
    const whole = specials ? bracketed(brackets, kept) : kept;
    this.requireFit(whole, field);
    return whole;
  }

  /** @throws Fault invalid_request */
  requireFit({ length }: Int32Array, field: string): void {
    if (length === 0) throw invalid(field, "The input cannot be empty.");
    if (length > this.#window) throw this.tooLong(field, String(length));
  }

  /** Adds to the sum of the request. @throws Fault invalid_request */
  count(tokens: number, field: string): void {
    this.#tokens += tokens;
    const { most } = this.#options;
    if (this.#tokens > most)
      throw invalid(field, `The inputs have more than ${most} tokens together; send fewer of them in one request.`);
  }

  #cut(tokens: Int32Array, around: number, field: string): Int32Array {
    const room = this.room(around, field);
    return room === undefined ? tokens : this.keep(tokens, room);
  }

  /** So many at most, from the side that the request says. */
  keep(tokens: Int32Array, most: number): Int32Array {
    if (tokens.length <= most) return tokens;
    return this.#options.truncate?.side === "left" ? tokens.slice(tokens.length - most) : tokens.slice(0, most);
  }

  /** Tokens that truncation leaves for text; undefined: nothing is truncated. @throws Fault invalid_request */
  room(around: number, field: string): number | undefined {
    const { truncate } = this.#options;
    if (truncate === undefined) return undefined;
    const room = (truncate.tokens === -1 ? this.#window : truncate.tokens) - around;
    if (room < 1)
      throw invalid(
        truncate.field,
        `${truncate.field} leaves no room for ${field}: the model puts ${around} tokens around it.`,
      );
    return room;
  }

  private tooLong(field: string, tokens: string): Fault {
    return invalid(
      field,
      `This model's maximum context length is ${this.#window} tokens. However, you requested ${tokens} tokens in the input. ` +
        "Please reduce the length of the input.",
    );
  }
}

/** Not in the middle of a character. */
function shortened(text: string, most: number, side: Truncation["side"]): string {
  const cut = side === "right" ? text.slice(0, most) : text.slice(-most);
  return text.isWellFormed() && !cut.isWellFormed() ? (side === "right" ? cut.slice(0, -1) : cut.slice(1)) : cut;
}
