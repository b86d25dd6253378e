/**
 * Which URL may be fetched at all, judged before any name is resolved. Pure.
 *
 * Invariant (Wall: T44): what is dialled is what was written. The text has one reading: no control characters, spaces,
 * backslashes or userinfo, and its host in the form that the parser gives back, so that no other spelling of an address
 * or a name passes; and its host is one that the caller listed.
 * Callers: guarded-fetch.ts.
 */
import { isIP } from "node:net";
import { EgressError } from "./policy.ts";

const MAX_LENGTH = 2048;
/** Scheme, authority, rest. The authority has no `@`; visible ASCII only, without what parsers fold or cut. */
const SHAPE = /^(https?):\/\/([^/?#@\\]+)([/?][\x21\x22\x24-\x5b\x5d-\x7e]*)?$/;
/** A label of at least one character before each dot, and two labels. */
const NAME = /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/;
const SINGLE_LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** Names that never lead to a public place. */
const LOCAL = /(?:^|\.)(?:localhost|local|internal|intranet|lan|home|corp|home\.arpa)$/;
const NOWHERE = /(?:^|\.)(?:onion|invalid|alt)$/;

export interface UrlRules {
  /** `host` or `host:port`, as a URL prints it. */
  readonly hosts: readonly string[];
  /** Names that lead to a place inside: one label, `.local`, `.internal` … */
  readonly localNames: boolean;
  /** Whether `http:` may be used, and then to loopback only. */
  readonly plainLoopback: boolean;
}

export interface Target {
  readonly url: URL;
  /** An address without brackets, or a name. */
  readonly hostname: string;
  readonly isAddress: boolean;
}

/** @throws EgressError forbidden: the message has nothing of the URL but its host, and that only where it is well formed */
export function guardedUrl(text: string, rules: UrlRules): Target {
  if (text.length > MAX_LENGTH) throw forbidden(`a URL is longer than ${MAX_LENGTH} characters`);
  const [, , authority] = SHAPE.exec(text) ?? [];
  if (authority === undefined) throw forbidden("a URL is not plain: https://host/path, without userinfo or fragment");
  const url = URL.parse(text);
  // The parser folds case, full-width digits, octal and hexadecimal addresses: what it had to change was a trick.
  if (url === null || url.host !== authority) throw forbidden("a URL's host is not in its plain form");
  if (!rules.hosts.includes(url.host)) throw forbidden(`the host ${url.host} is not one that was named`);
  const hostname = url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname;
  const isAddress = isIP(hostname) !== 0;
  if (!isAddress) judgeName(hostname, rules);
  if (url.protocol === "http:" && !rules.plainLoopback) throw forbidden(`plain http to ${url.host} is not allowed`);
  return { url, hostname, isAddress };
}

function judgeName(name: string, { localNames }: UrlRules): void {
  if (name.length > 253) throw forbidden("a host name is longer than any");
  if (NOWHERE.test(name)) throw forbidden(`the name ${name} leads nowhere`);
  if (localNames && SINGLE_LABEL.test(name)) return;
  if (!NAME.test(name)) throw forbidden("a host is not a name of at least two labels");
  if (!localNames && LOCAL.test(name)) throw forbidden(`the name ${name} leads inside this network`);
}

function forbidden(message: string): EgressError {
  return new EgressError("forbidden", message);
}
