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

export interface Redactor extends Redact {
  /** One that was made, or read, since the start. The first of many go: they are no longer in use. */
  also(secret: Secret): void;
}

const SHORTEST = 8;
/** Of those that came later. */
const MOST_LATER = 256;
const REPLACEMENT = "[secret]";
/** Minted keys; JSON web tokens; the prefix of widespread API keys. */
const SHAPES = [
  "cst_[0-9A-Za-z]{20,64}",
  "eyJ[0-9A-Za-z_-]{10,4096}\\.[0-9A-Za-z_-]{2,8192}(?:\\.[0-9A-Za-z_-]{0,4096})?",
  "\\b(?:sk|hf)[-_][0-9A-Za-z_-]{20,256}",
];
const PATTERN = new RegExp(SHAPES.join("|"), "g");

export function createRedact(secrets: readonly Secret[]): Redactor {
  let later: readonly Secret[] = [];
  let literals = literalsOf(secrets);
  const redact = (text: string): string =>
    literals.reduce((rest, literal) => rest.replaceAll(literal, REPLACEMENT), text).replace(PATTERN, REPLACEMENT);
  const also = (secret: Secret): void => {
    later = [...later, secret].slice(-MOST_LATER);
    literals = literalsOf([...secrets, ...later]);
  };
  return Object.assign(redact, { also });
}

function literalsOf(secrets: readonly Secret[]): readonly string[] {
  const known = secrets.map((secret) => secret.expose()).filter((text) => text.length >= SHORTEST);
  // As they stand in JSON, too.
  const spelled = new Set(known.flatMap((text) => [text, stringifyJson(text).slice(1, -1)]));
  // The longest first: one secret may begin with another.
  return [...spelled].sort((a, b) => b.length - a.length);
}
