/**
 * One choice's tokens → typed deltas: bytes to text, stop strings, reasoning, tool calls, in this order.
 *
 * Invariants: no half of a character leaves (invalid bytes become U+FFFD once they cannot be completed); the tokens of
 * a delta go with it, and those whose text is held back go with the next; after a stop string nothing more comes.
 */
import type { ChoiceEvent, PrintedLogprob, PrintedPosition } from "#core/calls.ts";
import type { FinishReason, PositionLogprobs, TokenLogprob } from "#core/generate.ts";
import type { Tokenizer } from "#core/model.ts";
import type { ReasoningParser } from "./reasoning.ts";
import { StopStrings } from "./stop.ts";
import type { ToolParser, ToolPart } from "./tools/parser.ts";

/** What vLLM gives as stop_reason beside the finish reason `repetition`. */
const REPEATED = "repetition_detected";

export interface OutputOptions {
  readonly choice: number;
  readonly tokenizer: Tokenizer;
  readonly stop: readonly string[];
  readonly includeStopString: boolean;
  readonly skipSpecialTokens: boolean;
  /** Stop strings do not count before so many tokens. */
  readonly minTokens: number;
  /** Stop tokens of the request: these are reported, the model's own are not. */
  readonly stopTokenIds: readonly number[];
  /** Deltas carry logprobs, token ids. */
  readonly logprobs: boolean;
  readonly tokenIds: boolean;
  /** Control tokens that are shown whatever skipSpecialTokens says: the parsers look out for them. */
  readonly marks: readonly string[];
  readonly reasoning: ReasoningParser | undefined;
  readonly tools: ToolParser | undefined;
}

export class Output {
  private readonly options: OutputOptions;
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  private readonly stops: StopStrings;
  private readonly stopTokens: ReadonlySet<number>;
  private readonly markTokens: ReadonlySet<number>;
  /** A token that may end the sequence: its text is not shown until it is known that it did not. */
  private suspended: number | undefined;
  private pendingIds: number[] = [];
  private pendingLogprobs: PrintedPosition[] = [];
  private finished = false;
  private count = 0;
  private thought = 0;

  constructor(options: OutputOptions) {
    this.options = options;
    this.stops = new StopStrings(options.stop, options.includeStopString);
    this.stopTokens = new Set([...options.tokenizer.endOfTurn, ...options.stopTokenIds]);
    this.markTokens = tokensOf(options.tokenizer, options.marks);
  }

  get ended(): boolean {
    return this.finished;
  }

  /** Tokens taken so far; the stop token and those of a matched stop string count. */
  get tokens(): number {
    return this.count;
  }

  get reasoningTokens(): number {
    return this.thought;
  }

  push(tokens: readonly number[], logprobs: readonly PositionLogprobs[] | undefined): ChoiceEvent[] {
    const events: ChoiceEvent[] = [];
    for (const [i, token] of tokens.entries()) {
      if (this.finished) break;
      this.take(token, logprobs?.[i]);
      const stop = this.text(this.bytesToText(token), events);
      if (stop !== undefined) this.finish(events, "stop", stop);
    }
    this.attach(events);
    return events;
  }

  private take(token: number, logprobs: PositionLogprobs | undefined): void {
    this.count++;
    if (this.options.reasoning?.thinking === true) this.thought++;
    if (this.options.tokenIds) this.pendingIds.push(token);
    if (this.options.logprobs && logprobs !== undefined)
      this.pendingLogprobs.push(printPosition(this.options.tokenizer, logprobs));
  }

  private bytesToText(token: number): string {
    const earlier = this.suspended === undefined ? "" : this.decode(this.suspended);
    this.suspended = undefined;
    if (!this.stopTokens.has(token)) return earlier + this.decode(token);
    this.suspended = token;
    return earlier;
  }

  private decode(token: number): string {
    const shown = !this.options.skipSpecialTokens || this.markTokens.has(token);
    return this.decoder.decode(this.options.tokenizer.piece(token, shown), { stream: true });
  }

  /** @returns the stop string that this text completed */
  private text(text: string, events: ChoiceEvent[]): string | undefined {
    if (text === "") return undefined;
    const result = this.stops.push(text, this.count > this.options.minTokens || this.options.minTokens === 0);
    if (typeof result === "string") {
      this.split(result, events);
      return undefined;
    }
    this.split(result.text, events);
    return result.stop;
  }

  private split(text: string, events: ChoiceEvent[]): void {
    const { reasoning } = this.options;
    if (reasoning === undefined) {
      this.content(text, events);
      return;
    }
    const parts = reasoning.push(text);
    this.emit({ type: "reasoning", text: parts.reasoning }, events);
    this.content(parts.content, events);
  }

  private content(text: string, events: ChoiceEvent[]): void {
    if (this.options.tools === undefined) this.emit({ type: "text", text }, events);
    else if (text !== "") for (const part of this.options.tools.push(text)) this.part(part, events);
  }

  private part(part: ToolPart, events: ChoiceEvent[]): void {
    if (part.type === "text") this.emit(part, events);
    else events.push({ ...part, type: "tool-call", choice: this.options.choice });
  }

  private emit(delta: { readonly type: "text" | "reasoning"; readonly text: string }, events: ChoiceEvent[]): void {
    if (delta.text === "") return;
    const last = events.at(-1);
    if (last !== undefined && last.type === delta.type)
      events[events.length - 1] = { ...last, text: last.text + delta.text };
    else events.push({ ...delta, choice: this.options.choice });
  }

  /** The engine ended the sequence: what was held back, and the finish. */
  end(reason: FinishReason, stopToken: number | undefined): ChoiceEvent[] {
    const events: ChoiceEvent[] = [];
    if (this.finished) return events;
    const rest = this.lastText(stopToken);
    const stop = this.text(rest + this.decoder.decode(), events);
    const reported = stopToken !== undefined && this.options.stopTokenIds.includes(stopToken) ? stopToken : undefined;
    if (stop !== undefined) this.finish(events, "stop", stop);
    else this.finish(events, reason, reason === "repetition" ? REPEATED : reported);
    this.attach(events);
    return events;
  }

  /** The stop token's own text is left out unless asked for (include_stop_str_in_output). */
  private lastText(stopToken: number | undefined): string {
    if (this.suspended === undefined) return "";
    const shown = this.suspended !== stopToken || this.options.includeStopString;
    return shown ? this.decode(this.suspended) : "";
  }

  private finish(events: ChoiceEvent[], reason: FinishReason, stop: string | number | undefined): void {
    this.finished = true;
    this.split(this.stops.flush(), events);
    const { reasoning, tools, choice } = this.options;
    const rest = reasoning?.end();
    if (rest !== undefined) {
      this.emit({ type: "reasoning", text: rest.reasoning }, events);
      this.content(rest.content, events);
    }
    for (const part of tools?.end() ?? []) this.part(part, events);
    events.push({ type: "finish", choice, reason, ...(stop === undefined ? {} : { stop }) });
  }

  /** Tokens go with the last delta; with an empty one when the sequence ends and none is there. */
  private attach(events: ChoiceEvent[]): void {
    if (this.pendingIds.length === 0 && this.pendingLogprobs.length === 0) return;
    let at = events.findLastIndex((event) => event.type !== "finish");
    if (at < 0) {
      if (!this.finished) return;
      events.unshift({ type: "text", choice: this.options.choice, text: "" });
      at = 0;
    }
    events[at] = {
      ...(events[at] as ChoiceEvent),
      ...(this.options.tokenIds ? { tokenIds: this.pendingIds } : {}),
      ...(this.options.logprobs ? { logprobs: this.pendingLogprobs } : {}),
    };
    this.pendingIds = [];
    this.pendingLogprobs = [];
  }
}

function tokensOf({ specials }: Tokenizer, marks: readonly string[]): ReadonlySet<number> {
  if (marks.length === 0) return new Set();
  return new Set(specials.filter(({ text, control }) => control && marks.includes(text)).map(({ id }) => id));
}

const pieceDecoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** A position as it is printed: tokens become their own text, U+FFFD where a token is part of a character. */
export function printPosition(tokenizer: Tokenizer, { chosen, top }: PositionLogprobs): PrintedPosition {
  const print = (entry: TokenLogprob): PrintedLogprob => {
    const bytes = tokenizer.piece(entry.token, true);
    return { ...entry, text: pieceDecoder.decode(bytes), bytes: Array.from(bytes) };
  };
  return { ...print(chosen), top: top.map(print) };
}
