/**
 * What every reader of tool calls is: text in, in pieces of any size, and parts of content and calls out.
 *
 * Invariants (Wall: T88), of every family: the parts do not depend on where the text was cut; no text makes a parser throw; each
 * character is looked at a bounded number of times; what turns out not to be a call before its name and arguments have
 * begun is content as it was written. Text after the first call is dropped.
 */
import { newId } from "#base/ids.ts";

export type ToolPart =
  | { readonly type: "text"; readonly text: string }
  /** `name` and `id` on a call's first fragment. */
  | {
      readonly type: "call";
      readonly index: number;
      readonly id?: string;
      readonly name?: string;
      readonly arguments: string;
    };

export interface ToolParser {
  push(text: string): ToolPart[];
  end(): ToolPart[];
}

/** Reads one call. It is made behind what opens the call. */
export interface CallReader {
  /** open: wants more. broken: no call after all, unless it is committed. */
  readonly state: "open" | "done" | "broken";
  /** Whether it counts as a call: its name and the beginning of its arguments are known. */
  readonly committed: boolean;
  /** All that was read, for when it is no call. Of no use once it is one. */
  readonly source: string;
  /** @returns characters used; what it left comes again, with more behind it */
  feed(text: string): number;
  /** Nothing more comes; `rest` was left. Closes what may be closed. */
  end(rest: string): void;
  /** Fragments that may be sent by now. */
  take(): ToolPart[];
}

export type MakeReader = (index: number) => CallReader;

export function callId(): string {
  return `chatcmpl-tool-${newId()}`;
}
