/**
 * One choice of a completion while its events come in: echo, offsets and logprobs are the same work for streams
 * and for full responses.
 */
import type { CallEvent, PrintedPosition } from "#core/calls.ts";
import { type CompletionLogprobs, codePoints, completionLogprobs, type NamelessToken } from "./_logprobs.ts";
import type { CompletionPrint } from "./completion-decode.ts";

/** What is known of a prompt before its first delta. */
export interface PromptPart {
  readonly tokenIds: readonly number[];
  readonly text: string;
  /** Present with echo and logprobs. */
  readonly positions?: readonly (PrintedPosition | null)[];
}

export interface Piece {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: CompletionLogprobs | null;
}

export class CompletionChoice {
  private readonly print: CompletionPrint;
  private readonly prompt: PromptPart;
  private opened = false;
  private offset = 0;

  constructor(print: CompletionPrint, prompt: PromptPart) {
    this.print = print;
    this.prompt = prompt;
  }

  /** Whether nothing was taken yet: the first piece carries the prompt's ids, and the echo. */
  get fresh(): boolean {
    return !this.opened;
  }

  /** The next piece of text; the first one has the echo in front. */
  take(text: string, tokenIds: readonly number[], positions: readonly PrintedPosition[]): Piece {
    const echo = this.print.echo && !this.opened;
    this.opened = true;
    // With token ids asked for, vLLM echoes the ids only.
    const shown = echo && !this.print.returnTokenIds ? this.prompt.text + text : text;
    const all = echo ? [...this.promptPositions(), ...positions] : positions;
    const piece = {
      text: shown,
      tokenIds,
      logprobs: this.print.logprobs === undefined ? null : completionLogprobs(all, this.print, this.offset),
    };
    this.offset += codePoints(shown);
    return piece;
  }

  private promptPositions(): (PrintedPosition | NamelessToken)[] {
    const ids = this.prompt.tokenIds;
    return (this.prompt.positions ?? []).map(
      (position, i) => position ?? { token: ids[i] ?? 0, text: this.firstText(), bytes: [] },
    );
  }

  /** The first prompt token has no printed form of its own: it is what the other tokens leave of the text. */
  private firstText(): string {
    const rest = (this.prompt.positions ?? []).reduce((sum, position) => sum + (position?.text.length ?? 0), 0);
    return this.prompt.text.slice(0, Math.max(0, this.prompt.text.length - rest));
  }
}

/** Collects what the events tell of prompts. */
export class Prompts {
  private readonly parts: {
    tokenIds: readonly number[];
    text: string;
    positions?: readonly (PrintedPosition | null)[];
  }[] = [];

  start(event: Extract<CallEvent, { type: "start" }>): void {
    for (const prompt of event.prompts) this.parts.push({ tokenIds: prompt.tokenIds, text: prompt.text ?? "" });
  }

  logprobs(event: Extract<CallEvent, { type: "prompt-logprobs" }>): void {
    const part = this.parts[event.prompt];
    if (part !== undefined) part.positions = event.positions;
  }

  of(choice: number, n: number): PromptPart {
    return this.parts[Math.floor(choice / n)] ?? { tokenIds: [], text: "" };
  }
}
