/**
 * Where calls begin and end: behind a mark that may stand anywhere, or at the very beginning of the output.
 * Called by the families.
 */
import { Marks } from "#prompt/marks.ts";
import type { CallReader, MakeReader, ToolParser, ToolPart } from "./parser.ts";

/** What is the same wherever calls begin. */
abstract class CallParser implements ToolParser {
  protected held = "";
  /** What was read and belongs to a call if one follows; content if none does. */
  protected lead = "";
  protected calls = 0;
  private call: CallReader | undefined;
  private readonly make: MakeReader;

  constructor(make: MakeReader) {
    this.make = make;
  }

  push(text: string): ToolPart[] {
    this.held += text;
    const parts: ToolPart[] = [];
    while (this.call === undefined ? this.seek(parts) : this.scan(this.call, parts)) {
      // Until nothing more can be told from what is there.
    }
    return parts;
  }

  /** Outside of a call. @returns whether more can be told */
  protected abstract seek(parts: ToolPart[]): boolean;
  /** A call was left; it was one if `committed`. */
  protected abstract left(parts: ToolPart[], committed: boolean): void;

  protected begin(): void {
    this.call = this.make(this.calls);
  }

  /** Content before the first call; nothing after it. */
  protected text(parts: ToolPart[], text: string): void {
    if (text !== "" && this.calls === 0) parts.push({ type: "text", text });
  }

  private scan(call: CallReader, parts: ToolPart[]): boolean {
    this.held = this.held.slice(call.feed(this.held));
    for (const fragment of call.take()) parts.push(fragment);
    if (call.state === "open") return false;
    this.leave(call, parts);
    return true;
  }

  private leave(call: CallReader, parts: ToolPart[]): void {
    this.call = undefined;
    if (call.committed) this.calls++;
    else this.text(parts, this.lead + call.source);
    this.lead = "";
    this.left(parts, call.committed);
  }

  end(): ToolPart[] {
    const parts: ToolPart[] = [];
    const { call } = this;
    if (call !== undefined) {
      call.end(this.held);
      for (const fragment of call.take()) parts.push(fragment);
      if (!call.committed) this.text(parts, this.lead + call.source + this.held);
    } else this.text(parts, this.lead + this.held);
    this.held = this.lead = "";
    this.call = undefined;
    return parts;
  }
}

export interface Markup {
  /** What a call begins with. */
  readonly open: string;
  /** What the first of several calls may begin with: markup where a call follows, content where none does. */
  readonly section?: string;
}

/** Calls behind a mark, anywhere in the text. */
export class MarkedCalls extends CallParser {
  private readonly markup: Markup;
  private readonly marks: Marks;

  constructor(markup: Markup, make: MakeReader) {
    super(make);
    this.markup = markup;
    this.marks = new Marks([markup.open, ...(markup.section === undefined ? [] : [markup.section])]);
  }

  protected override seek(parts: ToolPart[]): boolean {
    const found = this.marks.find(this.held);
    const upTo = found?.at ?? this.held.length - this.marks.partial(this.held);
    this.outside(parts, this.held.slice(0, upTo));
    this.held = this.held.slice(upTo + (found?.mark.length ?? 0));
    if (found === undefined) return false;
    if (found.mark === this.markup.open) {
      this.lead += found.mark;
      this.begin();
    } else {
      this.text(parts, this.lead);
      this.lead = found.mark;
    }
    return true;
  }

  /** White space between the mark of a section and that of a call belongs to them. */
  private outside(parts: ToolPart[], text: string): void {
    if (text === "") return;
    if (this.lead !== "" && text.trim() === "") this.lead += text;
    else {
      this.text(parts, this.lead + text);
      this.lead = "";
    }
  }

  protected override left(): void {
    // On to the next mark.
  }
}

export interface Leading {
  /** Marks that may stand before the first call, each once, in this order. */
  readonly prefixes: readonly string[];
  /** What the first call begins with; the others, too, unless the calls are a list. */
  readonly first: string;
  /** Calls stand in brackets. */
  readonly list: boolean;
  /** What stands between calls. */
  readonly joint: "," | ";";
}

/**
 * Calls that are the whole output. Where it does not begin like one it is content, and nothing is held back any more.
 */
export class LeadingCalls extends CallParser {
  private readonly leading: Leading;
  private phase: "prefix" | "item" | "joint" | "text" | "over" = "prefix";
  private prefix = 0;

  constructor(leading: Leading, make: MakeReader) {
    super(make);
    this.leading = leading;
  }

  protected override seek(parts: ToolPart[]): boolean {
    if (this.phase === "text" || this.phase === "over") {
      this.text(parts, this.held);
      this.held = "";
      return false;
    }
    const body = this.held.trimStart();
    this.lead += this.held.slice(0, this.held.length - body.length);
    this.held = body;
    if (body === "") return false;
    if (this.phase === "prefix") return this.atPrefix();
    return this.phase === "item" ? this.atItem() : this.atJoint();
  }

  private atPrefix(): boolean {
    const { prefixes, list } = this.leading;
    const next = prefixes[this.prefix];
    if (next === undefined) {
      if (list && !this.skip("[")) return this.over("text");
      this.phase = "item";
      return true;
    }
    if (!this.held.startsWith(next) && next.startsWith(this.held)) return false;
    this.skip(next);
    this.prefix++;
    return true;
  }

  private skip(literal: string): boolean {
    if (!this.held.startsWith(literal)) return false;
    this.lead += literal;
    this.held = this.held.slice(literal.length);
    return true;
  }

  private atItem(): boolean {
    const { first, list } = this.leading;
    if (list && this.held.startsWith("]")) return this.over(this.calls === 0 ? "text" : "over");
    if (first !== "" && !this.held.startsWith(first)) return this.over(this.calls === 0 ? "text" : "over");
    this.begin();
    return true;
  }

  private atJoint(): boolean {
    const { list, first, joint } = this.leading;
    // Models that write calls one after the other without a list leave the joint out at times.
    if (!this.skip(joint) && (list || !this.held.startsWith(first))) return this.over("over");
    this.phase = "item";
    return true;
  }

  private over(phase: "text" | "over"): true {
    this.phase = phase;
    this.held = this.lead + this.held;
    this.lead = "";
    return true;
  }

  protected override left(_parts: ToolPart[], committed: boolean): void {
    if (committed) this.phase = "joint";
    else this.phase = this.calls === 0 ? "text" : "over";
  }
}
