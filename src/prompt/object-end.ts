/**
 * Finds the end of the JSON object that a text begins with, in pieces: by its brackets, those in strings left out. Whether
 * it is JSON is not asked. Called by the parsers of tool calls and by harmony.ts.
 */

export class ObjectEnd {
  closed = false;
  private depth = 0;
  private quoted = false;
  private escaped = false;

  /** Whether the text stands in a string: what looks like a mark is none there. */
  get inString(): boolean {
    return this.quoted;
  }

  /** @returns characters that belong to it */
  feed(text: string): number {
    let i = 0;
    while (i < text.length && !this.closed) this.character(text[i++] as string);
    return i;
  }

  private character(c: string): void {
    if (this.quoted) {
      if (this.escaped) this.escaped = false;
      else if (c === "\\") this.escaped = true;
      else if (c === '"') this.quoted = false;
    } else if (c === '"') this.quoted = true;
    else if (c === "{" || c === "[") this.depth++;
    else if (c === "}" || c === "]") this.closed = --this.depth <= 0;
  }
}
