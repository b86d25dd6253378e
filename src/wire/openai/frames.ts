/**
 * Frames of a stream. The head of a chunk is the same for the whole stream, so it is made once.
 */
import { stringifyJson } from "#base/json.ts";
import type { UsageDetails } from "./_usage.ts";

/** What the answer is called and how the server prints usage. */
export interface Identity {
  /** `chatcmpl-…` or `cmpl-…`. */
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly usage: UsageDetails;
}

export const DONE = "data: [DONE]\n\n";

/** Makes the chunks of one stream. `after` holds the fields behind `choices`. */
export type ChunkMaker = (choices: readonly unknown[], after?: Readonly<Record<string, unknown>>) => string;

export function chunkMaker(identity: Identity, object: string, model: string): ChunkMaker {
  const head = stringifyJson({ id: identity.id, object, created: identity.created, model }).slice(0, -1);
  return (choices, after) => {
    const tail = after === undefined ? "" : `,${stringifyJson(after).slice(1, -1)}`;
    return `data: ${head},"choices":${stringifyJson(choices)}${tail}}\n\n`;
  };
}
