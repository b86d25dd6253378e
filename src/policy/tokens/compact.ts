/**
 * A signed token's text as its parts: JWS compact serialization (RFC 7515), read one way only. Nothing is verified here.
 *
 * Invariants (Wall: T45): the three parts are canonical base64url (no padding, no spaces, no stray bits), so that a token
 * has one spelling; header and claims are JSON objects without a member twice; a header that brings its own key, names a
 * place to get one, or asks for an extension is refused whatever it says.
 * Callers: verify.ts.
 */
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { type Claims, TokenProblem } from "./problem.ts";

export interface CompactToken {
  readonly header: TokenHeader;
  readonly payload: Buffer;
}

export interface TokenHeader {
  readonly alg: string;
  readonly kid: string | undefined;
  readonly typ: string | undefined;
}

const CANONICAL = /^[A-Za-z0-9_-]+$/;
/** Keys inside, keys elsewhere, extensions that have to be understood, and another meaning of the payload. */
const FORBIDDEN = ["jwk", "jku", "x5c", "x5u", "crit", "b64", "zip", "enc"] as const;
const MAX_TEXT = 256;
const LIMITS = { maxDepth: 16, maxValues: 20_000 };

/** @throws TokenProblem */
export function readCompact(token: string): CompactToken {
  const parts = token.split(".");
  if (parts.length !== 3) throw new TokenProblem("not three parts");
  const [header, payload] = parts.map(decoded) as [Buffer, Buffer, Buffer];
  return { header: headerOf(readObject(header, "header")), payload };
}

/** @throws TokenProblem */
export function readClaims(payload: Buffer): Claims {
  return readObject(payload, "claims");
}

function decoded(part: string): Buffer {
  const bytes = CANONICAL.test(part) ? Buffer.from(part, "base64url") : Buffer.alloc(0);
  // Back again: 4n+1 characters and bits beyond the last byte would be dropped in silence.
  if (part === "" || bytes.toString("base64url") !== part) throw new TokenProblem("a part is not canonical base64url");
  return bytes;
}

function readObject(bytes: Buffer, what: string): Claims {
  let value: JsonValue;
  try {
    value = parseJson(bytes, LIMITS);
  } catch (error) {
    if (error instanceof JsonError)
      throw new TokenProblem(`the ${what} is no JSON that is read here: ${error.message}`);
    throw error;
  }
  if (value === null || typeof value !== "object" || Array.isArray(value))
    throw new TokenProblem(`the ${what} is not an object`);
  return value;
}

function headerOf(header: Claims): TokenHeader {
  const forbidden = FORBIDDEN.find((name) => Object.hasOwn(header, name));
  if (forbidden !== undefined) throw new TokenProblem(`the header has ${forbidden}`);
  const alg = textOf(header, "alg");
  if (alg === undefined) throw new TokenProblem("the header has no alg");
  return { alg, kid: textOf(header, "kid"), typ: textOf(header, "typ") };
}

function textOf(header: Claims, name: string): string | undefined {
  if (!Object.hasOwn(header, name)) return undefined;
  const value = header[name];
  if (typeof value !== "string" || value === "" || value.length > MAX_TEXT)
    throw new TokenProblem(`the header's ${name} is no short text`);
  return value;
}
