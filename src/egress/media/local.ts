/**
 * file: URLs beneath the one folder that --allowed-local-media-path names. Whoever may use a model may then read every
 * image, sound and film in it, whatever their tenant.
 *
 * Invariants: those of base/beneath.ts; a URL has one reading; what is outside and what is not there look alike.
 * Callers: fetcher.ts; app opens it.
 */
import { realpath } from "node:fs/promises";
import { resolve } from "node:path";
import { Beneath, BeneathError } from "#base/beneath.ts";
import { EgressEnd } from "#egress/decision.ts";
import { EgressError } from "#egress/policy.ts";

/** No host; visible ASCII, without what parsers fold or cut. */
const SHAPE = /^file:\/\/(\/[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]+)$/;
const MAX_LENGTH = 4096;

export class LocalMedia {
  /** As the operator wrote it, and as it is, both with a slash at the end. */
  readonly #prefixes: readonly string[];
  readonly #folder: Beneath;

  private constructor(prefixes: readonly string[], folder: Beneath) {
    this.#prefixes = prefixes;
    this.#folder = folder;
  }

  /** @throws BeneathError for people */
  static async open(path: string): Promise<LocalMedia> {
    const folder = await Beneath.open(path);
    const plain = [resolve(path), await realpath(path)];
    return new LocalMedia(
      plain.map((each) => (each.endsWith("/") ? each : `${each}/`)),
      folder,
    );
  }

  /** @throws EgressError forbidden | EgressEnd content */
  async read(url: string, maxBytes: number): Promise<Buffer> {
    const names = this.#namesOf(url);
    if (names === undefined)
      throw new EgressError("forbidden", "a file: URL leads to no file beneath the folder", undefined, 3);
    try {
      return await this.#folder.read(names, maxBytes);
    } catch (error) {
      if (error instanceof BeneathError) throw new EgressEnd("content", error.message);
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#folder.close();
  }

  #namesOf(url: string): readonly string[] | undefined {
    const [, encoded] = (url.length <= MAX_LENGTH && SHAPE.exec(url)) || [];
    const path = encoded === undefined || /%2f/i.test(encoded) ? undefined : decoded(encoded);
    const prefix = this.#prefixes.find((each) => path?.startsWith(each));
    return prefix === undefined ? undefined : path?.slice(prefix.length).split("/");
  }
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
