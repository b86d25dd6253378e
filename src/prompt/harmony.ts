/**
 * Harmony, the format of gpt-oss: messages of a header and a body between control tokens, streaming.
 *
 * `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>
 * {…}<|call|>`. The first header begins in the prompt. Text that has no header, which a grammar may force, is of the final
 * channel. A mark inside a string of a call's arguments is part of the string. Each character is looked at once. Called by the parsers of reasoning and of tool calls.
 */
import { Marks } from "./marks.ts";
import { ObjectEnd } from "./object-end.ts";

const START = "<|start|>";
const CHANNEL = "<|channel|>";
const MESSAGE = "<|message|>";
const CONSTRAIN = "<|constrain|>";
const ENDS = ["<|end|>", "<|call|>", "<|return|>"] as const;

export const HARMONY_MARKS = [START, CHANNEL, MESSAGE, CONSTRAIN, ...ENDS] as const;

/** What a message is by its header. */
export interface Message {
  /** As it was written, between START and MESSAGE. */
  readonly header: string;
  readonly channel: string;
  /** Of a call: whom it is for, as `functions.f`. */
  readonly recipient: string | undefined;
}

export type HarmonyPart =
  | { readonly type: "open"; readonly message: Message }
  | { readonly type: "body"; readonly text: string }
  | { readonly type: "close" };

const LONGEST_HEADER = 512;
const MARKS = new Marks(HARMONY_MARKS);
const PLAIN: Message = { header: "", channel: "final", recipient: undefined };

/** Where the text is: before anything of a message, in its header, in its body. */
type Phase = "start" | "header" | "body";

export class HarmonyReader {
  private phase: Phase = "start";
  private held = "";
  private header = "";
  /** Of a call whose arguments are an object. */
  private body: ObjectEnd | undefined;
  private begun = false;

  push(text: string): HarmonyPart[] {
    this.held += text;
    const parts: HarmonyPart[] = [];
    for (;;) {
      const found = MARKS.find(this.held);
      const upTo = found?.at ?? this.held.length - MARKS.partial(this.held);
      this.read(this.held.slice(0, upTo), parts);
      this.held = this.held.slice(upTo + (found?.mark.length ?? 0));
      if (found === undefined) return parts;
      if (this.body?.inString) this.read(found.mark, parts);
      else this.atMark(found.mark, parts);
    }
  }

  private read(text: string, parts: HarmonyPart[]): void {
    if (text === "") return;
    if (this.phase === "body") {
      this.follow(text);
      parts.push({ type: "body", text });
    } else {
      this.header += text;
      if (this.phase === "start" ? !mayBegin(this.header) : this.header.length > LONGEST_HEADER) this.plain(parts);
    }
  }

  /** In arguments: whether they are an object, and where its strings are. */
  private follow(text: string): void {
    const rest = this.begun ? text : text.trimStart();
    if (rest === "") return;
    if (!this.begun && !rest.startsWith("{")) this.body = undefined;
    this.begun = true;
    this.body?.feed(rest);
  }

  /** It was no header. */
  private plain(parts: HarmonyPart[]): void {
    const text = this.header;
    this.open(PLAIN, parts);
    parts.push({ type: "body", text });
  }

  private open(message: Message, parts: HarmonyPart[]): void {
    [this.phase, this.header] = ["body", ""];
    [this.begun, this.body] = [false, calledBy(message) === undefined ? undefined : new ObjectEnd()];
    parts.push({ type: "open", message });
  }

  private atMark(mark: string, parts: HarmonyPart[]): void {
    if (mark === MESSAGE && this.phase !== "body") this.open(messageOf(this.header), parts);
    else if (mark === START || (mark === CHANNEL && this.phase === "body")) this.next("header", mark, parts);
    else if (mark === CHANNEL || mark === CONSTRAIN) this.inHeader(mark);
    else if (mark !== MESSAGE) this.next("start", mark, parts);
  }

  private inHeader(mark: string): void {
    if (this.phase === "body") return;
    this.phase = "header";
    this.header += mark;
  }

  /** What was there is over, whether it said so or not. */
  private next(phase: "start" | "header", mark: string, parts: HarmonyPart[]): void {
    if (this.phase === "body") parts.push({ type: "close" });
    this.body = undefined;
    this.phase = phase;
    this.header = mark === CHANNEL ? mark : "";
  }

  end(): HarmonyPart[] {
    const parts: HarmonyPart[] = [];
    // Half a header is nothing that anybody should read; text without one is.
    if (this.phase === "body") this.read(this.held, parts);
    else if (this.phase === "start" && (this.header + this.held).trim() !== "") {
      this.header += this.held;
      this.plain(parts);
    }
    if (this.phase === "body") parts.push({ type: "close" });
    [this.phase, this.held, this.header, this.body] = ["start", "", "", undefined];
    return parts;
  }
}

/** The prompt may have ended within a header: a recipient comes first then. */
function mayBegin(header: string): boolean {
  const body = header.trimStart();
  return header.length <= LONGEST_HEADER && ("to=".startsWith(body.slice(0, 3)) || /^to=\S*\s*$/.test(body));
}

function messageOf(header: string): Message {
  const channel = /<\|channel\|>\s*(\w+)/.exec(header)?.[1] ?? "final";
  return { header, channel, recipient: /(?:^|\s|>)to=([^\s<]+)/.exec(header)?.[1] };
}

/** The function that a message calls. */
export function calledBy({ channel, recipient }: Message): string | undefined {
  if (channel === "final" || recipient?.startsWith("functions.") !== true) return undefined;
  const name = recipient.slice("functions.".length);
  return name === "" ? undefined : name;
}

/** The message as the model wrote it, for the parser behind; its end is written by `close`. */
export function rewritten({ header }: Message): string {
  return `${START}${header}${MESSAGE}`;
}

export const CLOSE = "<|call|>";
