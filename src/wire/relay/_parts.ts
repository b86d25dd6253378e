/**
 * Kinds of parts that a message may have. Used by media.ts.
 *
 * Invariant: a part of a kind that is not known here is refused, as what an upstream of another version would fetch, read
 * or decode for it is not known either. Most conversations are seen to have none by a search for the word alone.
 */
import type { JsonMember } from "#base/json-scan.ts";

/** Read by the upstream with a deserialiser: refused by the name of their field. */
export const TENSORS: readonly string[] = [
  "image_embeds",
  "audio_embeds",
  "video_embeds",
  "prompt_embeds",
  "image_pil",
];
/** Of chat completions, of Responses' items, of rerankers' documents. */
export const PARTS: ReadonlySet<string> = new Set([
  ...TENSORS,
  "audio_url",
  "file",
  "image_url",
  "input_audio",
  "input_file",
  "input_image",
  "input_text",
  "output_text",
  "reasoning_text",
  "refusal",
  "summary_text",
  "text",
  "thinking",
  "tool_reference",
  "video_url",
]);
/** Of Messages. */
export const BLOCKS: ReadonlySet<string> = new Set([
  "document",
  "image",
  "redacted_thinking",
  "search_result",
  "text",
  "thinking",
  "tool_reference",
  "tool_result",
  "tool_use",
]);
/** That a `type` within messages has elsewhere than at a part. */
const OTHERS = [
  "base64",
  "ephemeral",
  "function",
  "function_call",
  "function_call_output",
  "message",
  "reasoning",
  "url",
];
const COMMON: ReadonlySet<string> = new Set([...PARTS, ...BLOCKS, ...OTHERS]);

const WORD = '"type"';
/** Of escapes that stand for a letter of the word: t, y, p; e. */
const ESCAPES = ["\\u007", "\\u0065"];
/** White space and a value behind the word. */
const NEAR = 64;

/**
 * Whether something is of a kind that is not common, or may be: then each part has to be looked at.
 * @param level of containers on which parts stand; above it there is none
 */
export function hasUncommon(bytes: Buffer, { start, end, depth }: JsonMember, level: number): boolean {
  if (depth < level) return false;
  const text = bytes.subarray(start, end);
  if (ESCAPES.some((letter) => text.includes(letter))) return true;
  for (let at = text.indexOf(WORD); at >= 0; at = text.indexOf(WORD, at + WORD.length)) {
    const behind = text.toString("latin1", at + WORD.length, at + WORD.length + NEAR);
    // Else it is a text that is this word.
    if (!/^\s*(?::|$)/.test(behind)) continue;
    if (!COMMON.has(/^\s*:\s*"([a-z_0-9]+)"/.exec(behind)?.[1] ?? "")) return true;
  }
  return false;
}
