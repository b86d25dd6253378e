/**
 * Takes secrets out of text that is going to be kept or sent: those that are known, and what looks like one.
 *
 * The second line behind the rule that nothing secret gets into such text at all. Linear in the text. No secret is part
 * of a regular expression: engines name the code of one by its text, and a profile shows those names. Known secrets of
 * fewer than 8 characters are left in: they would be found in ordinary words, and their length is a fault of its own.
 * Callers: app, which knows the secrets, hands the function on.
 */
import { stringifyJson } from "./json.ts";
import type { Secret } from "./secret.ts";

export type Redact = (text: string) => string;

const SHORTEST = 8;
const REPLACEMENT = "[secret]";
/** Minted keys; JSON web tokens; the prefix of widespread API keys. */
const SHAPES = [
  "cst_[0-9A-Za-z]{20,64}",
  "eyJ[0-9A-Za-z_-]{10,4096}\\.[0-9A-Za-z_-]{2,8192}(?:\\.[0-9A-Za-z_-]{0,4096})?",
  "\\b(?:sk|hf)[-_][0-9A-Za-z_-]{20,256}",
];
const PATTERN = new RegExp(SHAPES.join("|"), "g");

export function createRedact(secrets: readonly Secret[]): Redact {
  const known = secrets.map((secret) => secret.expose()).filter((text) => text.length >= SHORTEST);
  // As they stand in JSON, too.
  const spelled = new Set(known.flatMap((text) => [text, stringifyJson(text).slice(1, -1)]));
  // The longest first: one secret may begin with another.
  const literals = [...spelled].sort((a, b) => b.length - a.length);
  return (text) =>
    literals.reduce((rest, literal) => rest.replaceAll(literal, REPLACEMENT), text).replace(PATTERN, REPLACEMENT);
}
