/**
 * Calls of gpt-oss: messages of Harmony to `functions.NAME`, whose body is a JSON object. The final channel and preambles
 * in the commentary are content; the analysis is nobody's, unless the parser of reasoning has taken it before.
 */
import type { CallForm } from "#core/structured.ts";
import { calledBy, type HarmonyPart, HarmonyReader } from "#prompt/harmony.ts";
import { ObjectEnd } from "#prompt/object-end.ts";
import { callId, type ToolParser, type ToolPart } from "./parser.ts";

/** Behind `<|start|>assistant`, with which a prompt ends. The token that ends a call ends the turn: there is one. */
export const OPENAI_CALLS: CallForm = {
  begin: "",
  mark: "<|channel|>commentary to=functions.",
  head: "",
  name: "plain",
  middle: " <|constrain|>json<|message|>",
  close: "",
  joint: "",
  end: "",
  single: true,
};

export function openaiParser(): ToolParser {
  return new HarmonyCalls();
}

class HarmonyCalls implements ToolParser {
  private readonly reader = new HarmonyReader();
  private calls = 0;
  /** What becomes of the body. */
  private into: "content" | "nothing" | Body = "nothing";

  push(text: string): ToolPart[] {
    return this.reader.push(text).flatMap((part) => this.part(part));
  }

  end(): ToolPart[] {
    return this.reader.end().flatMap((part) => this.part(part));
  }

  private part(part: HarmonyPart): ToolPart[] {
    if (part.type === "open") {
      const name = calledBy(part.message);
      if (name !== undefined) this.into = new Body(name, this.calls);
      else this.into = part.message.channel === "analysis" ? "nothing" : "content";
      return [];
    }
    const { into } = this;
    if (typeof into === "string")
      return part.type === "body" && into === "content" ? [{ type: "text", text: part.text }] : [];
    if (part.type === "body") return into.push(part.text);
    // A call whose arguments have not begun is none.
    if (into.called) this.calls++;
    return [];
  }
}

/** The body of one call. Whatever is no object is content. */
class Body {
  called = false;
  private readonly name: string;
  private readonly index: number;
  private readonly object = new ObjectEnd();
  private space = "";
  private plain = false;

  constructor(name: string, index: number) {
    this.name = name;
    this.index = index;
  }

  push(text: string): ToolPart[] {
    if (this.plain) return [{ type: "text", text }];
    if (this.called) return this.fragment(text, {});
    const body = text.trimStart();
    const space = this.space + text.slice(0, text.length - body.length);
    this.space = space;
    if (body === "") return [];
    if (body.startsWith("{")) return this.begin(body);
    this.plain = true;
    return [{ type: "text", text: space + body }];
  }

  private begin(text: string): ToolPart[] {
    this.called = true;
    return this.fragment(text, { id: callId(), name: this.name });
  }

  private fragment(text: string, head: { readonly id?: string; readonly name?: string }): ToolPart[] {
    const used = text.slice(0, this.object.feed(text));
    return used === "" ? [] : [{ type: "call", index: this.index, ...head, arguments: used }];
  }
}
