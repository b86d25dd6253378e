/**
 * Stop strings over a stream of text: finds the first that completes, holds back only what may still become one.
 *
 * One Knuth-Morris-Pratt automaton a stop string, fed character by character (UTF-16 units), so the result does not
 * depend on how the text is cut and the work is linear in the text times the number of strings (a handful).
 * Of strings that complete at the same character the one that began first wins.
 */

export interface StopMatch {
  /** Text up to the match, and the match itself when it is to be included. */
  readonly text: string;
  readonly stop: string;
}

class Needle {
  readonly text: string;
  private readonly fallback: Int32Array;
  /** Length of the longest prefix of the needle that ends here. */
  state = 0;

  constructor(text: string) {
    this.text = text;
    this.fallback = new Int32Array(text.length + 1);
    for (let i = 1, k = 0; i < text.length; i++) {
      while (k > 0 && text.charCodeAt(i) !== text.charCodeAt(k)) k = this.fallback[k] as number;
      if (text.charCodeAt(i) === text.charCodeAt(k)) k++;
      this.fallback[i + 1] = k;
    }
  }

  /** @returns whether the needle is complete with this character */
  feed(unit: number): boolean {
    if (this.state === this.text.length) this.state = this.fallback[this.state] as number;
    while (this.state > 0 && this.text.charCodeAt(this.state) !== unit)
      this.state = this.fallback[this.state] as number;
    if (this.text.charCodeAt(this.state) === unit) this.state++;
    return this.state === this.text.length;
  }
}

export class StopStrings {
  private readonly needles: readonly Needle[];
  private readonly include: boolean;
  private held = "";

  /** @param stops none empty */
  constructor(stops: readonly string[], include: boolean) {
    this.needles = stops.map((stop) => new Needle(stop));
    this.include = include;
  }

  /**
   * @param armed false: a match does not count yet (min_tokens)
   * @returns the text that may be sent, or the match that ends it
   */
  push(text: string, armed: boolean): string | StopMatch {
    if (this.needles.length === 0) return text;
    const before = this.held.length;
    const all = this.held + text;
    for (let i = 0; i < text.length; i++) {
      const found = this.feed(text.charCodeAt(i));
      if (found === undefined || !armed) continue;
      const end = before + i + 1;
      this.held = "";
      return { text: all.slice(0, this.include ? end : end - found.length), stop: found };
    }
    const keep = this.growing();
    this.held = all.slice(all.length - keep);
    return all.slice(0, all.length - keep);
  }

  private feed(unit: number): string | undefined {
    let found: string | undefined;
    for (const needle of this.needles) {
      if (needle.feed(unit) && (found === undefined || needle.text.length > found.length)) found = needle.text;
    }
    return found;
  }

  /** A match that did not count is text like any other: only a proper prefix may still grow. */
  private growing(): number {
    return this.needles.reduce(
      (most, needle) => (needle.state === needle.text.length ? most : Math.max(most, needle.state)),
      0,
    );
  }

  /** The stream is over: nothing more can complete. */
  flush(): string {
    const rest = this.held;
    this.held = "";
    return rest;
  }
}
