/**
 * What media are by their first bytes, and whether that is what they are said to be. Pure.
 *
 * Invariant: a type that leaves here is one that the bytes have; what a server or a client says of them can only refuse.
 * Callers: media/.
 */

/** What a request can ask for. The keys are the closed list. */
export const MEDIA_KINDS = ["image", "audio", "video"] as const;
export type MediaKind = (typeof MEDIA_KINDS)[number];

interface Format {
  readonly is: (bytes: Buffer) => boolean;
  /** What it is called where it is asked for as such. */
  readonly types: Partial<Readonly<Record<MediaKind, string>>>;
  /** Other names that servers have for it. */
  readonly also?: readonly string[];
}

/** The first that fits decides. */
const FORMATS: readonly Format[] = [
  { is: starts("\x89PNG\r\n\x1a\n"), types: { image: "image/png" }, also: ["image/apng"] },
  { is: starts("\xff\xd8\xff"), types: { image: "image/jpeg" }, also: ["image/jpg", "image/pjpeg"] },
  { is: (bytes) => starts("GIF87a")(bytes) || starts("GIF89a")(bytes), types: { image: "image/gif" } },
  { is: riff("WEBP"), types: { image: "image/webp" } },
  { is: riff("WAVE"), types: { audio: "audio/wav" }, also: ["audio/x-wav", "audio/wave", "audio/vnd.wave"] },
  { is: riff("AVI "), types: { video: "video/x-msvideo" }, also: ["video/avi", "video/msvideo"] },
  { is: starts("fLaC"), types: { audio: "audio/flac" }, also: ["audio/x-flac"] },
  { is: starts("OggS"), types: { audio: "audio/ogg", video: "video/ogg" }, also: ["application/ogg", "audio/opus"] },
  { is: starts("ID3"), types: { audio: "audio/mpeg" }, also: ["audio/mp3", "audio/mpeg3"] },
  { is: isMpegFrame, types: { audio: "audio/mpeg" }, also: ["audio/mp3", "audio/mpeg3"] },
  { is: isAdts, types: { audio: "audio/aac" }, also: ["audio/aacp", "audio/x-aac"] },
  { is: ftyp(["qt  "]), types: { video: "video/quicktime" } },
  {
    is: ftyp(["isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42", "avc1", "M4V ", "M4A ", "M4B ", "dash", "MSNV"]),
    types: { audio: "audio/mp4", video: "video/mp4" },
    also: ["audio/x-m4a", "audio/m4a", "video/x-m4v"],
  },
  {
    is: ebml("webm"),
    types: { audio: "audio/webm", video: "video/webm" },
  },
  { is: ebml("matroska"), types: { audio: "audio/x-matroska", video: "video/x-matroska" } },
];

/** What says nothing about its content. */
const UNSAID: ReadonlySet<string> = new Set(["", "application/octet-stream", "binary/octet-stream"]);

/**
 * @param declared Content-Type, or a data URL's type; undefined: nothing was said
 * @returns the media type, or undefined: the bytes are nothing of this kind, or not what they are said to be
 */
export function mediaType(bytes: Buffer, kind: MediaKind, declared: string | undefined): string | undefined {
  const format = FORMATS.find(({ is }) => is(bytes));
  const type = format?.types[kind];
  if (format === undefined || type === undefined) return undefined;
  const said = essence(declared ?? "");
  const names = [...Object.values(format.types), ...(format.also ?? [])];
  return UNSAID.has(said) || names.includes(said) ? type : undefined;
}

function essence(type: string): string {
  return (type.split(";")[0] ?? "").trim().toLowerCase();
}

function starts(magic: string): (bytes: Buffer) => boolean {
  return (bytes) => bytes.toString("latin1", 0, magic.length) === magic;
}

function riff(form: string): (bytes: Buffer) => boolean {
  return (bytes) => starts("RIFF")(bytes) && bytes.toString("latin1", 8, 12) === form;
}

function ftyp(brands: readonly string[]): (bytes: Buffer) => boolean {
  return (bytes) => bytes.toString("latin1", 4, 8) === "ftyp" && brands.includes(bytes.toString("latin1", 8, 12));
}

/** Matroska's DocType stands in the first element. */
function ebml(docType: string): (bytes: Buffer) => boolean {
  return (bytes) =>
    starts("\x1aE\xdf\xa3")(bytes) && bytes.subarray(0, 64).includes(`\x42\x82${sized(docType)}`, 0, "latin1");
}

/** EBML's size of up to 126 bytes, and the text. */
function sized(text: string): string {
  return String.fromCharCode(0x80 | text.length) + text;
}

/** MPEG audio: sync, a version and a layer that exist, a bit rate and a sampling rate that exist. */
function isMpegFrame(bytes: Buffer): boolean {
  const [sync = 0, second = 0, third = 0] = bytes;
  if (sync !== 0xff || (second & 0xe0) !== 0xe0) return false;
  const [version, layer] = [(second >> 3) & 3, (second >> 1) & 3];
  return version !== 1 && layer !== 0 && third >> 4 !== 15 && ((third >> 2) & 3) !== 3;
}

function isAdts(bytes: Buffer): boolean {
  const [sync = 0, second = 0] = bytes;
  return sync === 0xff && (second & 0xf6) === 0xf0;
}
