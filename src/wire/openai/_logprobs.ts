/**
 * Logprobs in the three shapes of the API: chat, completions, prompt.
 *
 * vLLM keeps one ordered map a position: the drawn token first, then the likeliest; a "top" list is its head.
 */
import type { PrintedLogprob, PrintedPosition } from "#core/calls.ts";
import type { Print } from "./_output.ts";

/** What stands for minus infinity, which JSON cannot say. */
const FLOOR = -9999.0;

function clamp(logprob: number): number {
  return logprob >= FLOOR ? logprob : FLOOR;
}

function printToken(entry: NamelessToken, asIds: boolean): string {
  return asIds ? `token_id:${entry.token}` : entry.text;
}

/** The drawn token, then the others in falling order. */
function ordered(position: PrintedPosition): PrintedLogprob[] {
  return [position, ...position.top.filter((entry) => entry.token !== position.token)];
}

function chatEntry(entry: PrintedLogprob, asIds: boolean) {
  return { token: printToken(entry, asIds), logprob: clamp(entry.logprob), bytes: entry.bytes };
}

export type ChatLogprobs = { readonly content: readonly unknown[] };

export function chatLogprobs(
  positions: readonly PrintedPosition[],
  print: Pick<Print, "tokensAsIds" | "logprobs">,
): ChatLogprobs {
  const asIds = print.tokensAsIds;
  return {
    content: positions.map((position) => {
      const all = ordered(position);
      const top = print.logprobs === -1 ? all : all.slice(0, print.logprobs ?? 0);
      return { ...chatEntry(position, asIds), top_logprobs: top.map((entry) => chatEntry(entry, asIds)) };
    }),
  };
}

export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: (Record<string, number> | null)[];
}

/** @param offset code points before the first token. A null position (the first prompt token) has no logprob. */
export function completionLogprobs(
  positions: readonly (PrintedPosition | NamelessToken)[],
  print: Print,
  offset: number,
): CompletionLogprobs {
  const out: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
  let at = offset;
  for (const position of positions) {
    const token = printToken(position, print.tokensAsIds);
    out.text_offset.push(at);
    out.tokens.push(token);
    at += codePoints(token);
    if ("logprob" in position) {
      out.token_logprobs.push(clamp(position.logprob));
      out.top_logprobs.push(topMap(position, print));
    } else {
      out.token_logprobs.push(null);
      out.top_logprobs.push(null);
    }
  }
  return out;
}

/** A token without a logprob: the first of a prompt. */
export type NamelessToken = Pick<PrintedLogprob, "token" | "text" | "bytes">;

/** OpenAI's rule: the drawn token and `logprobs` more. No prototype, since a token may spell `__proto__`. */
function topMap(position: PrintedPosition, print: Print): Record<string, number> {
  const all = ordered(position);
  const map: Record<string, number> = Object.create(null);
  for (const entry of print.logprobs === -1 ? all : all.slice(0, (print.logprobs ?? 0) + 1)) {
    map[printToken(entry, print.tokensAsIds)] = clamp(entry.logprob);
  }
  return map;
}

/** `prompt_logprobs`: null for the first position, then token id → logprob, rank, text. */
export function promptLogprobs(positions: readonly (PrintedPosition | null)[]): readonly unknown[] {
  return positions.map((position) => {
    if (position === null) return null;
    return Object.fromEntries(
      ordered(position).map((entry) => [
        entry.token,
        { logprob: clamp(entry.logprob), rank: entry.rank, decoded_token: entry.text },
      ]),
    );
  });
}

/** Offsets count as Python does. */
export function codePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    // The second half of a pair is not another character.
    if (unit < 0xdc00 || unit > 0xdfff) count++;
  }
  return count;
}
