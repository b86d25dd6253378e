/**
 * The reasoning of gpt-oss: messages of Harmony's analysis channel, and what the model says to tools that nobody has given
 * it. Called by reasoning.ts.
 *
 * Messages that call a function go on as they were written when calls are read behind this parser, and are content else.
 */
import { CLOSE, calledBy, type HarmonyPart, HarmonyReader, type Message, rewritten } from "./harmony.ts";
import type { ReasoningParser, Split } from "./reasoning.ts";

const NOTHING: Split = { reasoning: "", content: "" };

export class HarmonyThought implements ReasoningParser {
  private readonly reader = new HarmonyReader();
  private readonly readsCalls: boolean;
  private into: "reasoning" | "content" | "call" = "content";

  constructor(readsCalls: boolean) {
    this.readsCalls = readsCalls;
  }

  get thinking(): boolean {
    return this.into === "reasoning";
  }

  push(text: string): Split {
    return this.split(this.reader.push(text));
  }

  end(): Split {
    return this.split(this.reader.end());
  }

  private split(parts: readonly HarmonyPart[]): Split {
    let [reasoning, content] = ["", ""];
    for (const part of parts) {
      const { reasoning: thought, content: said } = this.part(part);
      reasoning += thought;
      content += said;
    }
    return { reasoning, content };
  }

  private part(part: HarmonyPart): Split {
    if (part.type === "body")
      return this.into === "reasoning" ? { ...NOTHING, reasoning: part.text } : { ...NOTHING, content: part.text };
    if (part.type === "open") {
      this.into = this.placeOf(part.message);
      return this.into === "call" ? { ...NOTHING, content: rewritten(part.message) } : NOTHING;
    }
    const called = this.into === "call";
    this.into = "content";
    return called ? { ...NOTHING, content: CLOSE } : NOTHING;
  }

  private placeOf(message: Message): "reasoning" | "content" | "call" {
    if (calledBy(message) !== undefined) return this.readsCalls ? "call" : "content";
    if (message.channel === "analysis") return "reasoning";
    return message.channel === "commentary" && message.recipient !== undefined ? "reasoning" : "content";
  }
}
