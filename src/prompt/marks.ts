/**
 * The literals that a family marks its output with, looked for in text that comes in pieces.
 *
 * A piece is looked at once: what may be the beginning of a mark at its end is all that has to be kept for the next, and
 * is shorter than the longest mark. Called by the parsers of reasoning and of tool calls.
 */

export interface Found {
  readonly at: number;
  readonly mark: string;
}

export class Marks {
  private readonly literals: readonly string[];
  private readonly pattern: RegExp;
  private readonly longest: number;

  constructor(literals: readonly string[]) {
    // Where one begins like another the longer is meant.
    this.literals = literals.toSorted((a, b) => b.length - a.length);
    this.pattern = new RegExp(this.literals.map(escaped).join("|"), "g");
    this.longest = Math.max(...literals.map((literal) => literal.length));
  }

  /** The first mark at or behind `from`. */
  find(text: string, from = 0): Found | undefined {
    this.pattern.lastIndex = from;
    const match = this.pattern.exec(text);
    return match === null ? undefined : { at: match.index, mark: match[0] };
  }

  /** Length of the longest end of `text` that begins a mark without being one. */
  partial(text: string): number {
    const most = Math.min(text.length, this.longest - 1);
    const tail = text.slice(text.length - most);
    for (let at = 0; at < most; at++) {
      const end = tail.slice(at);
      if (this.literals.some((literal) => literal.length > end.length && literal.startsWith(end))) return most - at;
    }
    return 0;
  }
}

function escaped(literal: string): string {
  return literal.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
