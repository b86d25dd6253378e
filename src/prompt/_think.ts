/**
 * Splits a thought between two marks from the answer behind it, streaming. Called by reasoning.ts.
 *
 * Invariants: nothing is held back but what may be (the beginning of) a mark or the white space beside one; the
 * concatenation of both parts is the text without its marks and the line breaks that touch them. Each character is
 * looked at once.
 */
import { Marks } from "./marks.ts";
import type { ReasoningParser, Split } from "./reasoning.ts";

export interface ThoughtMarks {
  readonly opens: readonly string[];
  readonly closes: readonly string[];
}

type Phase = "start" | "reasoning" | "content";

export class ThinkParser implements ReasoningParser {
  private phase: Phase;
  private readonly unmarked: "reasoning" | "content";
  private readonly opens: readonly string[];
  private readonly closes: Marks;
  private held = "";
  /** White space that goes with what follows it, or is dropped with the mark that does. */
  private space = "";
  /** Line breaks right behind a mark are not text. */
  private skipBreaks: boolean;

  /** @param unmarked what text is that does not begin with a mark */
  constructor({ opens, closes }: ThoughtMarks, phase: "start" | "reasoning", unmarked: "reasoning" | "content") {
    this.opens = opens;
    this.closes = new Marks(closes);
    this.phase = phase;
    this.unmarked = unmarked;
    this.skipBreaks = phase === "reasoning";
  }

  get thinking(): boolean {
    return this.phase === "reasoning" || (this.phase === "start" && this.unmarked === "reasoning");
  }

  push(text: string): Split {
    this.held += text;
    let [reasoning, content] = ["", ""];
    if (this.phase === "start" && !this.decide()) return { reasoning, content };
    if (this.phase === "reasoning") reasoning = this.think();
    if (this.phase === "content") {
      content = this.afterBreaks(this.space + this.held);
      this.held = this.space = "";
    }
    return { reasoning, content };
  }

  /** Does the answer begin with the mark? @returns false while it cannot be told */
  private decide(): boolean {
    const body = this.held.trimStart();
    this.space += this.held.slice(0, this.held.length - body.length);
    this.held = body;
    const open = this.opens.find((mark) => body.startsWith(mark));
    if (open !== undefined) {
      this.held = body.slice(open.length);
      this.enter("reasoning");
    } else if (!this.opens.some((mark) => mark.startsWith(body))) {
      this.phase = this.unmarked;
      this.skipBreaks = this.unmarked === "reasoning";
    }
    return this.phase !== "start";
  }

  private enter(phase: Phase): void {
    this.phase = phase;
    this.space = "";
    this.skipBreaks = true;
  }

  private think(): string {
    const found = this.closes.find(this.held);
    const upTo = found?.at ?? this.held.length - this.closes.partial(this.held);
    const text = this.thought(this.held.slice(0, upTo));
    this.held = this.held.slice(upTo + (found?.mark.length ?? 0));
    if (found !== undefined) this.enter("content");
    return text;
  }

  private thought(text: string): string {
    const body = text.trimEnd();
    if (body === "") {
      this.space += text;
      return "";
    }
    const ready = this.space + body;
    this.space = text.slice(body.length);
    return this.afterBreaks(ready);
  }

  private afterBreaks(text: string): string {
    if (!this.skipBreaks) return text;
    const trimmed = text.replace(/^[\r\n]+/, "");
    if (trimmed !== "") this.skipBreaks = false;
    return trimmed;
  }

  end(): Split {
    const rest = this.held;
    this.held = "";
    return this.thinking
      ? { reasoning: this.thought(rest), content: "" }
      : { reasoning: "", content: this.afterBreaks(this.space + rest) };
  }
}
