/**
 * A subject as RFC 4514 text, taken apart into attributes: a pattern is held against one attribute's value, never against
 * the text, in which a value may spell what looks like the next attribute. Pure. Callers: certificates.ts.
 */

/** attribute type, upper case → its values, most specific first. */
export type Attributes = ReadonlyMap<string, readonly string[]>;

const TYPE = /^[A-Za-z][A-Za-z0-9-]*$|^[0-9]+(?:\.[0-9]+)*$/;
const HEX = /^[0-9A-Fa-f]{2}/;
/** Longer subjects name nobody. */
const LONGEST = 4096;

/** @returns undefined: not to be read in one way only */
export function parseDistinguishedName(text: string): Attributes | undefined {
  if (text.length > LONGEST) return undefined;
  const attributes = new Map<string, string[]>();
  if (text === "") return attributes;
  for (const part of splitUnescaped(text)) {
    const equals = part.indexOf("=");
    const type = part.slice(0, Math.max(0, equals)).toUpperCase();
    const value = unescaped(part.slice(equals + 1));
    if (!TYPE.test(type) || value === undefined) return undefined;
    attributes.set(type, [...(attributes.get(type) ?? []), value]);
  }
  return attributes;
}

/** At commas and plus signs without a backslash before them. */
function splitUnescaped(text: string): string[] {
  const parts: string[] = [];
  let begin = 0;
  for (let at = 0; at < text.length; at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "," || text[at] === "+") {
      parts.push(text.slice(begin, at));
      begin = at + 1;
    }
  }
  return [...parts, text.slice(begin)];
}

/** `\,` is a comma, `\2C` too: hexadecimal pairs are bytes of UTF-8. A value in BER (`#…`) has no text. */
function unescaped(value: string): string | undefined {
  if (value.startsWith("#")) return undefined;
  const bytes: Buffer[] = [];
  for (let at = 0; at < value.length; at++) {
    if (value[at] !== "\\") {
      const next = value.indexOf("\\", at);
      const end = next < 0 ? value.length : next;
      bytes.push(Buffer.from(value.slice(at, end)));
      at = end - 1;
      continue;
    }
    const rest = value.slice(at + 1);
    if (rest === "") return undefined;
    const pair = HEX.exec(rest)?.[0];
    bytes.push(pair === undefined ? Buffer.from(rest.slice(0, 1)) : Buffer.from(pair, "hex"));
    at += pair === undefined ? 1 : 2;
  }
  return new TextDecoder().decode(Buffer.concat(bytes));
}
