/**
 * Prompts as token ids, behind the wall between text and control tokens.
 *
 * Wall: T04, special tokens. A special literal becomes its token only where the template itself wrote every character
 * of it; whatever a client's string spells, alone or together with its neighbours, is encoded as text. Text between
 * two special tokens is encoded in one piece, whoever wrote it, so ids equal those of an ordinary tokenizer.
 * Callers: serving.
 */
import { Fault } from "#core/fault.ts";
import type { SpecialToken, Tokenizer } from "#core/model.ts";
import type { ChatTemplate, Rendered, RenderInput } from "./template.ts";

export interface EncodedPrompt {
  /** Shape [prompt length]. */
  readonly tokens: Int32Array;
  readonly text: string;
}

export interface ChatEncodeInput extends Omit<RenderInput, "bosToken" | "eosToken"> {
  /** Put bos in front if the model wants it and the template did not write it. */
  readonly addSpecialTokens: boolean;
}

/** @throws Fault invalid_request */
export async function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  input: ChatEncodeInput,
): Promise<EncodedPrompt> {
  const rendered = template.render({ ...input, ...spellings(tokenizer) });
  const tokens = await encodeRendered(tokenizer, rendered);
  return { tokens: input.addSpecialTokens ? withBos(tokenizer, tokens) : tokens, text: rendered.text };
}

/** What a template wrote, its special literals as their tokens. @throws Fault invalid_request */
export function encodeRendered(tokenizer: Tokenizer, rendered: Rendered): Promise<Int32Array> {
  return encodeSegments(tokenizer, splitSpecials(rendered, specialTrie(tokenizer)));
}

/** How the model's bos and eos tokens are written; empty when it has none. */
export function spellings(tokenizer: Tokenizer): { readonly bosToken: string; readonly eosToken: string } {
  return { bosToken: spellingOf(tokenizer, tokenizer.bos), eosToken: spellingOf(tokenizer, tokenizer.eos) };
}

/**
 * A completion's prompt: text is text. vLLM makes special tokens of literals in it; here a client who needs them
 * sends token ids.
 * @throws Fault invalid_request
 */
export async function encodePrompt(tokenizer: Tokenizer, text: string, addSpecialTokens: boolean): Promise<Int32Array> {
  const tokens = await tokenizer.encodeText(text);
  return addSpecialTokens ? withBos(tokenizer, tokens) : tokens;
}

function withBos(tokenizer: Tokenizer, tokens: Int32Array): Int32Array {
  if (!tokenizer.addsBos || tokenizer.bos === undefined || tokens[0] === tokenizer.bos) return tokens;
  return concat([Int32Array.of(tokenizer.bos), tokens]);
}

function spellingOf(tokenizer: Tokenizer, token: number | undefined): string {
  if (token === undefined) return "";
  const special = tokenizer.specials.find((candidate) => candidate.id === token);
  return special?.text ?? new TextDecoder().decode(tokenizer.piece(token, true));
}

/** Plain text, or one control token. */
export type Segment = { readonly text: string } | { readonly token: number };

/** Longest special literal at each place that lies wholly inside one run of the template's own text. */
function splitSpecials(rendered: Rendered, specials: SpecialTrie): Segment[] {
  const { text, runs } = rendered;
  const segments: Segment[] = [];
  let plainFrom = 0;
  let runStart = 0;
  runs.forEach((length, index) => {
    const runEnd = runStart + length;
    for (let at = index % 2 === 1 ? runStart : runEnd; at < runEnd; ) {
      const found = specials.longestAt(text, at, runEnd);
      if (found === undefined) at++;
      else {
        if (at > plainFrom) segments.push({ text: text.slice(plainFrom, at) });
        segments.push({ token: found.id });
        at += found.text.length;
        plainFrom = at;
      }
    }
    runStart = runEnd;
  });
  if (plainFrom < text.length) segments.push({ text: text.slice(plainFrom) });
  return segments;
}

async function encodeSegments(tokenizer: Tokenizer, segments: readonly Segment[]): Promise<Int32Array> {
  const parts = segments.map((segment) =>
    "token" in segment ? Int32Array.of(segment.token) : tokenizer.encodeText(segment.text),
  );
  return concat(await Promise.all(parts));
}

function concat(parts: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

// A literal is looked for from every place of the template's text; the bound keeps that linear.
const MAX_LITERAL = 256;

interface TrieNode {
  readonly next: Map<number, TrieNode>;
  special?: SpecialToken;
}

export class SpecialTrie {
  private readonly root: TrieNode = { next: new Map() };

  constructor(specials: readonly SpecialToken[]) {
    for (const special of specials) {
      if (special.text.length === 0 || special.text.length > MAX_LITERAL) continue;
      let node = this.root;
      for (let i = 0; i < special.text.length; i++) {
        const code = special.text.charCodeAt(i);
        let next = node.next.get(code);
        if (next === undefined) {
          next = { next: new Map() };
          node.next.set(code, next);
        }
        node = next;
      }
      node.special ??= special;
    }
  }

  /** The longest literal that starts at `from` and ends at or before `end`. */
  longestAt(text: string, from: number, end: number): SpecialToken | undefined {
    let found: SpecialToken | undefined;
    let node: TrieNode | undefined = this.root;
    for (let at = from; at < end; at++) {
      node = node.next.get(text.charCodeAt(at));
      if (node === undefined) break;
      found = node.special ?? found;
    }
    return found;
  }
}

const tries = new WeakMap<Tokenizer, SpecialTrie>();

function specialTrie(tokenizer: Tokenizer): SpecialTrie {
  let trie = tries.get(tokenizer);
  if (trie === undefined) {
    if (tokenizer.specials.some((special) => special.id < 0 || special.id >= tokenizer.vocabularySize)) {
      throw new Fault("internal", "The tokenizer is not usable.", {
        detail: "a special token lies outside the vocabulary",
      });
    }
    trie = new SpecialTrie(tokenizer.specials);
    tries.set(tokenizer, trie);
  }
  return trie;
}
