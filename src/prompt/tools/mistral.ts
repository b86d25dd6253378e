/**
 * Mistral's calls: `[TOOL_CALLS]NAME[ARGS]{…}` for each, with `[CALL_ID]…` before the arguments or not and without
 * `[ARGS]` where a tokenizer has none (v11 and newer); before that one `[TOOL_CALLS]` and a JSON list of
 * `{"name": …, "arguments": {…}}`. What follows the first mark tells which it is.
 */
import { randomInt } from "node:crypto";
import type { CallForm } from "#core/structured.ts";
import { Marks } from "#prompt/marks.ts";
import { LeadingCalls, MarkedCalls } from "./_calls.ts";
import { type Head, HeadedCallReader, headMarks, nameOf } from "./_headed-call.ts";
import { JSON_LIST_CALLS, JsonCallReader } from "./_json-call.ts";
import type { ToolParser, ToolPart } from "./parser.ts";

const OPEN = "[TOOL_CALLS]";
const ARGUMENTS = "[ARGS]";
const CALL_ID = "[CALL_ID]";

export const MISTRAL_MARKS = [OPEN, ARGUMENTS, CALL_ID] as const;

const HEAD = headMarks("</s>", [OPEN]);
const OPENING = new Marks([OPEN]);

export const MISTRAL_CALLS: CallForm = {
  begin: "",
  mark: OPEN,
  head: "",
  name: "plain",
  middle: ARGUMENTS,
  close: "",
  joint: "",
  end: "",
};

/** Of tokenizers that have no `[ARGS]`. */
export const MISTRAL_LISTED_CALLS: CallForm = {
  ...JSON_LIST_CALLS,
  begin: `${OPEN}[`,
};

export function mistralParser(): ToolParser {
  return new MistralParser();
}

class MistralParser implements ToolParser {
  private inner: ToolParser | undefined;
  private held = "";
  /** The mark, and white space behind it: what comes next decides. */
  private opening = "";

  push(text: string): ToolPart[] {
    if (this.inner !== undefined) return this.inner.push(text);
    this.held += text;
    const parts = this.opening === "" ? this.seek() : [];
    return this.opening === "" ? parts : [...parts, ...this.decide()];
  }

  private seek(): ToolPart[] {
    const found = OPENING.find(this.held);
    const upTo = found?.at ?? this.held.length - OPENING.partial(this.held);
    const text = this.held.slice(0, upTo);
    this.held = this.held.slice(upTo + (found?.mark.length ?? 0));
    this.opening = found?.mark ?? "";
    return text === "" ? [] : [{ type: "text", text }];
  }

  private decide(): ToolPart[] {
    const body = this.held.trimStart();
    this.opening += this.held.slice(0, this.held.length - body.length);
    this.held = body;
    return body === "" ? [] : this.enter(/^[[{]/.test(body) ? listed(body.startsWith("[")) : headed());
  }

  private enter(inner: ToolParser): ToolPart[] {
    this.inner = inner;
    const text = this.opening + this.held;
    this.held = this.opening = "";
    return inner.push(text);
  }

  end(): ToolPart[] {
    const text = this.opening + this.held;
    this.held = this.opening = "";
    return this.inner?.end() ?? (text === "" ? [] : [{ type: "text", text }]);
  }
}

function listed(list: boolean): ToolParser {
  return new LeadingCalls(
    { prefixes: [OPEN], first: "{", list, joint: "," },
    (index) => new JsonCallReader(index, nineCharacters),
  );
}

function headed(): ToolParser {
  const form = { parse: headOf, close: "</s>", marks: HEAD, makeId: nineCharacters };
  return new MarkedCalls({ open: OPEN }, (index) => new HeadedCallReader(index, form));
}

function headOf(head: string): Head | undefined {
  const [before = "", rest = "", ...more] = head.split(ARGUMENTS);
  const name = nameOf(before.split(CALL_ID, 1)[0] ?? "");
  return name === undefined || rest.trim() !== "" || more.length > 0 ? undefined : { name };
}

const ALPHANUMERIC = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/** The templates of these models refuse any other id. */
function nineCharacters(): string {
  return Array.from({ length: 9 }, () => ALPHANUMERIC[randomInt(ALPHANUMERIC.length)]).join("");
}
