/**
 * A call as its route's rule has judged it: what it may cost, and what is written to an upstream. Private to forwarding.ts.
 */

import type { WrittenForm } from "#wire/relay/form.ts";
import { type RelayVerdict, relayBody } from "#wire/relay/judge.ts";
import type { RelayMedia } from "#wire/relay/media.ts";
import { type Estimate, expect } from "./_estimate.ts";

export interface Work {
  /** Of the call upstream. */
  readonly id: string;
  /** As the client calls it. */
  readonly model: string | undefined;
  /** Usage was asked for on the server's account. */
  readonly strip: boolean;
  readonly media?: readonly RelayMedia[];
  /** Where prompts' bytes are, for telling them apart. */
  readonly prompt?: readonly Uint8Array[];
  /** Of its answer; absent: as many as come. */
  readonly maxBytes?: number | undefined;
  /** Of an answer that is a response. */
  readonly response?: ResponseWork | undefined;
  /** @param window of its model; 0: not known */
  expect(window: number): Estimate;
  /** @param model as the upstream calls it; undefined: as the client does */
  write(model: string | undefined, media: readonly string[]): WrittenForm;
}

export interface ResponseWork {
  /** What it says whatever the upstream wrote. */
  readonly fields: Readonly<Record<string, string | boolean | null>>;
  /**
   * Called with what a stream ended with, before the client sees that end; undefined: nothing that can be read.
   * @throws Fault it cannot be kept
   */
  readonly keep?: (response: Uint8Array | undefined) => Promise<void>;
}

export interface WorkOptions extends Pick<Work, "maxBytes" | "response"> {
  /** It is reserved, and about to be sent. */
  readonly onWrite?: () => void;
}

const NO_OPTIONS: WorkOptions = {};
const PROMPTS: ReadonlySet<string> = new Set([
  "messages",
  "prompt",
  "input",
  "system",
  "instructions",
  "token_ids",
  "query",
]);

/** Of a body that is JSON. */
export class JsonWork implements Work {
  readonly id: string;
  readonly maxBytes: number | undefined;
  readonly response: ResponseWork | undefined;
  readonly #verdict: RelayVerdict;
  readonly #onWrite: (() => void) | undefined;

  constructor(verdict: RelayVerdict, id: string, { maxBytes, response, onWrite }: WorkOptions = NO_OPTIONS) {
    this.#verdict = verdict;
    this.id = id;
    this.maxBytes = maxBytes;
    this.response = response;
    this.#onWrite = onWrite;
  }

  get model(): string | undefined {
    return this.#verdict.model;
  }

  get strip(): boolean {
    return this.#verdict.strip;
  }

  get media(): readonly RelayMedia[] {
    return this.#verdict.media;
  }

  get prompt(): readonly Uint8Array[] {
    const { body, scan } = this.#verdict;
    return scan.members.filter(({ name }) => PROMPTS.has(name)).map(({ start, end }) => body.subarray(start, end));
  }

  expect(window: number): Estimate {
    return expect(this.#verdict, window);
  }

  write(model: string | undefined, media: readonly string[]): WrittenForm {
    this.#onWrite?.();
    const pieces = relayBody(this.#verdict, model === undefined ? { media } : { model, media });
    return { contentType: "application/json", pieces };
  }
}
