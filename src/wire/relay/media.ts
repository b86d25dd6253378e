/**
 * Media in a conversation that is passed on: where their URLs stand, and what of them a client may not say.
 *
 * Invariant: whatever the upstream would fetch or read out of a URL is told of, or refused; a `uuid` that would name an entry of a cache that
 * all tenants share is made null; a part is of a kind that is known. Only places where a content part may stand are looked at, so that a tool's schema or
 * arguments may have any names. Costs nothing where no watched key stands.
 */
import { parseJson } from "#base/json.ts";
import { WatchedKeys } from "#base/json-keys.ts";
import { type JsonMember, scanJson } from "#base/json-scan.ts";
import { type Cut, cut } from "#base/splice.ts";
import { invalid } from "#core/fault.ts";
import { readable } from "#core/readable.ts";
import { BLOCKS, hasUncommon, PARTS, TENSORS } from "./_parts.ts";
import type { MediaPlace } from "./rules.ts";

/** Something to be fetched in the server's name, or to be judged where it stands (`data:`); the text of its URL stands at [start, end), quotes included. */
export interface RelayMedia {
  readonly kind: "image" | "video" | "audio" | "file";
  readonly url: string;
  readonly start: number;
  readonly end: number;
  /** Dotted path of the field. */
  readonly param: string;
  /** There stands only what its `data:` URL holds. */
  readonly bare?: true;
}

/** What stands there in its place. @param url `data:`, as it was judged */
export function mediaText({ bare }: RelayMedia, url: string): string {
  return bare === true ? url.slice(url.indexOf(",") + 1) : url;
}

export interface FoundMedia {
  readonly media: readonly RelayMedia[];
  /** Where a `uuid` is made null. */
  readonly cuts: readonly Cut[];
}

/** Speech in base64, beside its format. */
const SPEECH = "input_audio";
/** Formats that its bytes can be held against; of others what they are is what counts. */
const SPEECH_TYPES = new Set(["wav", "mp3"]);
const URLS: Readonly<Record<string, RelayMedia["kind"]>> = {
  image_url: "image",
  video_url: "video",
  audio_url: "audio",
  file_url: "file",
};
/** Of containers, on which a part may be one itself. */
const LEVELS: Readonly<Record<Exclude<MediaPlace, "urls">, number>> = {
  messages: 3,
  items: 3,
  anthropic: 3,
  batch: 4,
  blocks: 2,
  sides: 2,
};
export const WATCHED = new WatchedKeys(["uuid", "source", SPEECH, ...Object.keys(URLS), ...TENSORS]);
/** Entries of a list: the rule has counted them. */
const MAX_ENTRIES = 4_000_000;
const NONE: FoundMedia = { media: [], cuts: [] };

/** @throws Fault invalid_request | invalid_json */
export function findMedia(bytes: Buffer, member: JsonMember, place: MediaPlace): FoundMedia {
  const every = place !== "urls" && hasUncommon(bytes, member, LEVELS[place] - (member.kind === "object" ? 1 : 0));
  if (member.watched === 0 && place !== "urls" && !every) return NONE;
  const walk = new Walk(bytes, every);
  walk.enter(place, { member, path: member.name });
  return walk;
}

interface Spot {
  readonly member: JsonMember;
  readonly path: string;
}

class Walk {
  readonly media: RelayMedia[] = [];
  readonly cuts: Cut[] = [];
  private readonly bytes: Buffer;
  /** Also what has no watched key in it. */
  private readonly every: boolean;

  constructor(bytes: Buffer, every: boolean) {
    this.bytes = bytes;
    this.every = every;
  }

  enter(place: MediaPlace, spot: Spot): void {
    if (place === "urls") for (const entry of this.children(spot, false)) this.url(entry, "image");
    else if (place === "blocks") this.blocks(spot);
    else if (place === "sides") this.side(spot);
    else if (place === "batch") for (const entry of this.children(spot)) this.messages(entry, false);
    else this.messages(spot, place === "anthropic");
  }

  private messages(list: Spot, anthropic: boolean): void {
    for (const message of this.children(list))
      for (const field of this.children(message))
        if (field.member.name === "content" || field.member.name === "output") {
          if (anthropic) this.blocks(field);
          else if (field.member.kind === "object") this.part(field);
          else for (const part of this.children(field)) this.part(part);
        }
  }

  /** A text, an object with content, or a list of such. */
  private side(spot: Spot): void {
    if (spot.member.kind === "array") {
      for (const entry of this.children(spot)) if (entry.member.kind === "object") this.side(entry);
      return;
    }
    this.part(spot);
    for (const field of this.children(spot))
      if (field.member.name === "content") for (const part of this.children(field)) this.part(part);
  }

  private part(spot: Spot): void {
    if (spot.member.kind !== "object") return;
    for (const field of this.children(spot, false)) {
      const { name, start, end, kind } = field.member;
      const what = Object.hasOwn(URLS, name) ? URLS[name] : undefined;
      if (name === "type") this.kind(field, PARTS);
      else if (name === "uuid" && kind !== "null") this.cuts.push(cut(start, end, "null"));
      else if (TENSORS.includes(name) && kind !== "null")
        throw invalid(field.path, `${name} is not accepted from clients.`);
      else if (what !== undefined) this.reference(field, what);
      else if (kind === "object") this.nested(field);
    }
  }

  /** `input_audio`, `file`, …: what stands in them may name a file or a cache entry as well. */
  private nested(spot: Spot): void {
    const fields = this.children(spot, false);
    if (spot.member.name === SPEECH) {
      const format = this.word(fields, "format") ?? "";
      this.inlined(fields, "audio", SPEECH_TYPES.has(format) ? `audio/${format}` : "");
    }
    for (const { member, path } of fields)
      if (member.name === "uuid" && member.kind !== "null") this.cuts.push(cut(member.start, member.end, "null"));
      else if (member.name === "file_url") this.url({ member, path }, "file");
  }

  /** A URL, or an object that holds one. */
  private reference(spot: Spot, kind: RelayMedia["kind"]): void {
    if (spot.member.kind !== "object") {
      this.url(spot, kind);
      return;
    }
    for (const field of this.children(spot, false))
      if (field.member.name === "url") this.url(field, kind);
      else if (field.member.name === "uuid") this.cuts.push(cut(field.member.start, field.member.end, "null"));
  }

  /** Anthropic's: a source of its own, or blocks within (a tool's result, a document). */
  private blocks(spot: Spot): void {
    for (const block of this.children(spot)) {
      // A block's own keys are no part of their values.
      const fields = this.children(block, false);
      for (const field of fields) {
        if (field.member.name === "content") this.blocks(field);
        else if (field.member.name === "source") this.source(field, this.word(fields, "type"));
        else if (field.member.name === "type") this.kind(field, BLOCKS);
      }
    }
  }

  /** @param block its type: of a document the bytes are no medium, whatever they are said to be */
  private source(spot: Spot, block: string | undefined): void {
    const fields = this.children(spot, false);
    if (block !== "document" && this.word(fields, "type") === "base64")
      this.inlined(fields, "image", this.word(fields, "media_type") ?? "");
    for (const field of fields)
      if (field.member.name === "url") this.url(field, "image");
      else if (field.member.name === "content") this.blocks(field);
  }

  /** `data` in base64, without a URL: judged as one that is. */
  private inlined(fields: readonly Spot[], kind: RelayMedia["kind"], type: string): void {
    const field = fields.find(({ member }) => member.name === "data");
    if (field === undefined || field.member.kind === "null") return;
    const { start, end } = field.member;
    const url = `data:${type};base64,${this.text(field)}`;
    this.media.push({ kind, url, start, end, param: field.path, bare: true });
  }

  private word(fields: readonly Spot[], name: string): string | undefined {
    const field = fields.find(({ member }) => member.name === name);
    return field === undefined || field.member.kind !== "string" ? undefined : this.text(field);
  }

  /** @throws Fault invalid_request */
  private text({ member, path }: Spot): string {
    const text = readable("byte", () => parseJson(this.bytes.toString("utf8", member.start, member.end)));
    if (typeof text !== "string") throw invalid(path, `${path} must be a string.`);
    return text;
  }

  private kind({ member, path }: Spot, known: ReadonlySet<string>): void {
    if (member.kind === "null") return;
    const value = readable("byte", () => parseJson(this.bytes.toString("utf8", member.start, member.end)));
    if (typeof value !== "string" || !known.has(value))
      throw invalid(path, `${path} is no kind of part that is passed on.`);
  }

  private url({ member, path }: Spot, kind: RelayMedia["kind"]): void {
    if (member.kind === "null") return;
    const text = this.text({ member, path });
    // What stands in its URL is judged as what is fetched; files go on as they came.
    const own = /^data:/i.test(text);
    if (own && kind === "file") return;
    const scheme = /^([a-z][a-z0-9+.-]*):/.exec(plain(text))?.[1];
    // Files of this machine are its guard's matter: never of the server behind, whatever that may read.
    const local = /^file:/i.test(text);
    if (!own && !local && scheme !== "http" && scheme !== "https")
      throw invalid(path, `${path} must be an http:, https:, file: or data: URL.`);
    this.media.push({ kind, url: text, start: member.start, end: member.end, param: path });
  }

  /** Of a container; @param searched whether such without a watched key in them are left out */
  private children({ member, path }: Spot, searched = true): readonly Spot[] {
    if (member.kind !== "object" && member.kind !== "array") return [];
    const { start } = member;
    const { members } = readable("byte", () =>
      scanJson(this.bytes.subarray(start, member.end), WATCHED, { maxMembers: MAX_ENTRIES }),
    );
    const spots: Spot[] = [];
    for (const [i, child] of members.entries()) {
      if (searched && !this.every && child.watched === 0) continue;
      const moved = { ...child, start: child.start + start, end: child.end + start };
      spots.push({ member: moved, path: `${path}.${member.kind === "array" ? i : child.name}` });
    }
    return spots;
  }
}

/** As a reader of URLs takes it: without control characters and white space, in lower case. */
function plain(text: string): string {
  return text
    .slice(0, 64)
    .replace(/[\0-\x20]/g, "")
    .toLowerCase();
}
