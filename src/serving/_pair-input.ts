/**
 * A query and a document → one sequence for a model that reads both at once: between the model's own tokens, or in the
 * template that it was trained with.
 *
 * Invariant: no text of a client's makes a special token (Wall: T04); what is cut is the texts, never the template.
 * Called by score.ts.
 */
import { bracketed, bracketedPair, bracketSize } from "#prompt/brackets.ts";
import { spellings } from "#prompt/encode.ts";
import type { Pair, PairTemplate } from "#prompt/pair-template.ts";
import type { Reader } from "./_pool-input.ts";

/** One side of a pair. */
export interface Side {
  readonly text: string;
  readonly tokens: Int32Array;
  /** `tokens` are the beginning of the text's. */
  readonly cut: boolean;
}

/** @param most tokens of it that are kept; absent: all. @throws Fault invalid_request | cancelled */
export async function readSide(reader: Reader, given: string, field: string, most: number | undefined): Promise<Side> {
  const text = reader.readable(given, field, most !== undefined);
  const tokens = await reader.encode(text);
  return most === undefined || tokens.length <= most
    ? { text, tokens, cut: false }
    : { text, tokens: tokens.slice(0, most), cut: true };
}

export interface PairInput {
  readonly query: Side;
  readonly document: Side;
  /** Where they stand in the request. */
  readonly field: string;
  readonly kwargs: Pair["kwargs"];
}

/** Where they have to be cut the longer one is cut first, both on the same side. @throws Fault invalid_request | cancelled */
export async function fitPair(reader: Reader, pair: PairInput): Promise<Int32Array> {
  const { pairs } = reader.model;
  const whole = pairs === undefined ? betweenBrackets(reader, pair) : await inTemplate(reader, pairs, pair);
  reader.requireFit(whole, pair.field);
  return whole;
}

function betweenBrackets(reader: Reader, { query, document, field }: PairInput): Int32Array {
  const { brackets } = reader.model.tokenizer;
  const room = reader.room(bracketSize(brackets, true), field) ?? Number.POSITIVE_INFINITY;
  const [first, second] = shareOut(query.tokens.length, document.tokens.length, room);
  return bracketedPair(brackets, reader.keep(query.tokens, first), reader.keep(document.tokens, second));
}

async function inTemplate(reader: Reader, template: PairTemplate, pair: PairInput): Promise<Int32Array> {
  const { query, document, field } = pair;
  const most = reader.room(0, field);
  const around = most === undefined ? 0 : (await written(reader, template, pair, "", "")).length;
  let room = reader.room(around, field) ?? Number.POSITIVE_INFINITY;
  for (let spare = 1; ; spare *= 2) {
    const [first, second] = shareOut(query.tokens.length, document.tokens.length, room);
    const whole = await written(reader, template, pair, textOf(reader, query, first), textOf(reader, document, second));
    // Where text and template meet, a token may begin in one and end in the other: the sum is not always the parts'.
    const over = whole.length - (most ?? whole.length);
    if (over <= 0 || first + second === 0) return whole;
    room = Math.max(0, first + second - over * spare);
  }
}

async function written(
  reader: Reader,
  template: PairTemplate,
  { kwargs }: PairInput,
  query: string,
  document: string,
): Promise<Int32Array> {
  const { tokenizer } = reader.model;
  const rendered = template.render({ query, document, kwargs, ...spellings(tokenizer) });
  const tokens = await reader.encode(rendered);
  return template.complete ? tokens : bracketed(tokenizer.brackets, tokens);
}

/** The text again, or that of the tokens that are kept of it. */
function textOf(reader: Reader, side: Side, most: number): string {
  const { text, tokens, cut } = side;
  if (!cut && tokens.length <= most) return text;
  const kept = reader.keep(tokens, most);
  const bytes = Buffer.concat(Array.from(kept, (token) => reader.model.tokenizer.piece(token, false)));
  // Half a character may be left of the one that was cut through.
  const read = bytes.toString("utf8").replace(/^\ufffd+|\ufffd+$/g, "");
  return text.startsWith(" ") ? read : read.trimStart();
}

/** The shorter one keeps up to half of the room, the longer one gets the rest. */
function shareOut(first: number, second: number, room: number): readonly [first: number, second: number] {
  if (first + second <= room) return [first, second];
  const shorter = Math.min(first, second, Math.floor(room / 2));
  return first <= second ? [shorter, room - shorter] : [room - shorter, shorter];
}
