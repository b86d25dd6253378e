/**
 * A multipart form on its way to an upstream: read whole, by a grammar with one meaning, and written anew.
 *
 * Invariant: an upstream's reader sees the parts that were judged, and no other: what is sent is written here, under a
 * boundary that nobody could know, with names from a closed list (Wall: T125). The file's bytes are not copied.
 */
import { randomBytes } from "node:crypto";
import { Fault } from "#core/fault.ts";

export interface FormFilePart {
  /** As the client calls it; never a path. */
  readonly fileName: string;
  readonly contentType: string | undefined;
  readonly bytes: Uint8Array;
}

export interface RelayForm {
  /** In their order. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly file: FormFilePart | undefined;
}

export interface FormBounds {
  readonly fields: number;
  readonly fieldBytes: number;
  /** The field that is the file. */
  readonly file: string;
}

export interface WrittenForm {
  readonly contentType: string;
  readonly pieces: readonly Uint8Array[];
}

const BOUNDARY = /^multipart\/form-data[ \t]*;[ \t]*boundary=(?:"([^"]{1,70})"|([!-~]{1,70}))[ \t]*$/i;
const HEADER_BYTES = 4096;
const NAME_BYTES = 100;
const FILE_NAME_CHARACTERS = 255;
const DISPOSITION =
  /^form-data[ \t]*;[ \t]*name=(?:"([^"\\]*)"|([!#-+.0-9A-Z^_`a-z|~[\]-]+))(?:[ \t]*;[ \t]*filename=("(?:[^"\\]|\\.)*"|[!#-+.0-9A-Z^_`a-z|~-]+))?(?:[ \t]*;[ \t]*filename\*=[!-~]*)?[ \t]*$/i;
const MEDIA_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,63}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}$/i;
const PLAIN_ENCODINGS = ["7bit", "8bit", "binary"];
const LINE = Buffer.from("\r\n");
const BLANK = Buffer.from("\r\n\r\n");
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** @param contentType as the request says it @throws Fault invalid_request */
export function readRelayForm(body: Buffer, contentType: string | undefined, bounds: FormBounds): RelayForm {
  const [, quoted, bare] = BOUNDARY.exec(contentType ?? "") ?? [];
  const boundary = quoted ?? bare;
  if (boundary === undefined) throw unreadable();
  const fields: (readonly [string, string])[] = [];
  let file: FormFilePart | undefined;
  for (const { head, content } of partsOf(body, boundary)) {
    const { name, fileName, type } = headOf(head);
    if (fileName !== undefined) {
      if (name !== bounds.file || file !== undefined) throw new Fault("invalid_request", FILES(bounds.file));
      file = { fileName, contentType: type, bytes: content };
    } else {
      if (fields.length >= bounds.fields) throw new Fault("invalid_request", "The form has too many parts.");
      fields.push([name, textOf(content, name, bounds.fieldBytes)]);
    }
  }
  return { fields, file };
}

const FILES = (name: string): string => `The form has one file, in the field ${name}.`;

/** @param file its field's name */
export function writeRelayForm({ fields, file }: RelayForm, fileField: string): WrittenForm {
  const boundary = `castellan-${randomBytes(24).toString("hex")}`;
  const texts = fields.map(
    ([name, value]) => `--${boundary}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
  );
  const end = `--${boundary}--\r\n`;
  const contentType = `multipart/form-data; boundary=${boundary}`;
  if (file === undefined) return { contentType, pieces: [Buffer.from(texts.join("") + end)] };
  const type = file.contentType !== undefined && MEDIA_TYPE.test(file.contentType) ? file.contentType : UNKNOWN;
  const head = `--${boundary}\r\ncontent-disposition: form-data; name="${fileField}"; filename="${shown(file.fileName)}"\r\ncontent-type: ${type}\r\n\r\n`;
  return {
    contentType,
    pieces: [Buffer.from(texts.join("") + head), file.bytes, Buffer.from(`\r\n${end}`)],
  };
}

const UNKNOWN = "application/octet-stream";

/** Its end tells formats apart for some; the rest is nobody's matter. */
function shown(fileName: string): string {
  return /^[A-Za-z0-9._ -]{1,255}$/.test(fileName)
    ? fileName
    : `file${/\.[A-Za-z0-9]{1,8}$/.exec(fileName)?.[0] ?? ""}`;
}

interface Part {
  readonly head: string;
  readonly content: Buffer;
}

function* partsOf(body: Buffer, boundary: string): Generator<Part> {
  const first = Buffer.from(`--${boundary}`, "latin1");
  const next = Buffer.from(`\r\n--${boundary}`, "latin1");
  // No text before the first part, none behind the last: nobody sends one who means well.
  if (!body.subarray(0, first.length).equals(first)) throw unreadable();
  let at = first.length;
  while (!isLast(body, at)) {
    if (!body.subarray(at, at + 2).equals(LINE)) throw unreadable();
    const start = at + 2;
    const blank = body.subarray(start, start + HEADER_BYTES).indexOf(BLANK);
    if (blank < 0) throw unreadable();
    const from = start + blank + BLANK.length;
    const to = body.indexOf(next, from);
    if (to < 0) throw unreadable();
    yield { head: body.toString("latin1", start, start + blank), content: body.subarray(from, to) };
    at = to + next.length;
  }
}

function isLast(body: Buffer, at: number): boolean {
  const rest = body.toString("latin1", at, at + 5);
  return rest === "--" || rest === "--\r\n";
}

interface Head {
  readonly name: string;
  readonly fileName: string | undefined;
  readonly type: string | undefined;
}

function headOf(head: string): Head {
  const given = new Map<string, string>();
  for (const line of head.split("\r\n")) {
    const [, name, value] = /^([!#-'*+.0-9A-Z^_`a-z|~-]+):[ \t]*([^\0\r\n]*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined || given.has(name.toLowerCase())) throw unreadable();
    given.set(name.toLowerCase(), value.trimEnd());
  }
  const [, quoted, bare, file] = DISPOSITION.exec(given.get("content-disposition") ?? "") ?? [];
  const name = quoted ?? bare;
  if (name === undefined || name === "" || name.length > NAME_BYTES) throw unreadable();
  const encoding = given.get("content-transfer-encoding")?.toLowerCase();
  if (encoding !== undefined && !PLAIN_ENCODINGS.includes(encoding)) throw unreadable();
  const fileName = file?.replace(/^"|"$/g, "").slice(0, FILE_NAME_CHARACTERS);
  return { name, fileName, type: given.get("content-type") };
}

function textOf(content: Buffer, name: string, most: number): string {
  if (content.length > most) throw new Fault("invalid_request", "A field of the form is too long.");
  try {
    const text = UTF8.decode(content);
    if (!text.includes("\0")) return text;
  } catch {
    // As one with a NUL: it is no text.
  }
  throw new Fault("invalid_request", "A field of the form is no text.", { param: name });
}

function unreadable(): Fault {
  return new Fault("invalid_request", "The body is not a form that is read.");
}
