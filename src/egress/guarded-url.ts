/**
 * Which URL may be fetched at all, judged before any name is resolved: rules 1 to 3 of docs/egress.md. Pure.
 *
 * Invariant (Wall: T44): what is dialled is what was written. The text has one reading: no control characters, spaces,
 * backslashes or userinfo, and its host in the form that the parser gives back, so that no other spelling of an address
 * or a name passes; and its host is one that the caller listed.
 * Callers: guarded-fetch.ts, domains.ts, media/.
 */
import { isIP } from "node:net";
import { EgressError, type EgressRule } from "./policy.ts";

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
  /** Besides them: `example.org` itself, and `.example.org` for what is below it, as a URL prints them, without ports. */
  readonly domains?: readonly string[];
  /** Where a host of `domains` may be asked. */
  readonly ports?: readonly number[];
  /** Names that lead to a place inside: one label, `.local`, `.internal` … */
  readonly localNames: boolean;
  /** Whether `http:` may be used, and then to loopback only. */
  readonly plainLoopback: boolean;
  /** Whether `http:` may be used to public places. */
  readonly plainPublic?: boolean;
  /** Characters; 2048 unless said. */
  readonly maxLength?: number;
}

export interface Target {
  readonly url: URL;
  /** An address without brackets, or a name. */
  readonly hostname: string;
  readonly isAddress: boolean;
}

/** @throws EgressError forbidden: the message has nothing of the URL but its host, and that only where it is well formed */
export function guardedUrl(text: string, rules: UrlRules): Target {
  const target = plainUrl(text, rules.maxLength ?? MAX_LENGTH);
  const { url, hostname, isAddress } = target;
  if (!isListed(url, rules)) throw forbidden(3, `the host ${url.host} is not one that was named`);
  if (!isAddress) judgeName(hostname, rules.localNames);
  if (url.protocol === "http:" && !rules.plainLoopback && rules.plainPublic !== true)
    throw forbidden(1, `plain http to ${url.host} is not allowed`);
  return target;
}

/** Rules 1 and 2, which need no list. @throws EgressError forbidden */
export function plainUrl(text: string, maxLength: number = MAX_LENGTH): Target {
  if (text.length > maxLength) throw forbidden(1, `a URL is longer than ${maxLength} characters`);
  const [, , authority] = SHAPE.exec(text) ?? [];
  if (authority === undefined)
    throw forbidden(1, "a URL is not plain: https://host/path, without userinfo or fragment");
  const url = URL.parse(text);
  // The parser folds case, full-width digits, octal and hexadecimal addresses: what it had to change was a trick.
  if (url === null || url.host !== authority) throw forbidden(2, "a URL's host is not in its plain form");
  const hostname = url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname;
  return { url, hostname, isAddress: isIP(hostname) !== 0 };
}

/** As the protocol has it where none is written. */
export function portOf({ port, protocol }: URL): number {
  return port === "" ? (protocol === "https:" ? 443 : 80) : Number(port);
}

function isListed(url: URL, { hosts, domains = [], ports = [] }: UrlRules): boolean {
  if (hosts.includes(url.host)) return true;
  return ports.includes(portOf(url)) && domains.some((domain) => matchesDomain(url.hostname, domain));
}

function matchesDomain(name: string, domain: string): boolean {
  // A label of at least one character stands before the dot, so `.hf.co` is neither hf.co nor evilhf.co.
  return domain.startsWith(".") ? name.length > domain.length && name.endsWith(domain) : name === domain;
}

/** @throws EgressError forbidden */
export function judgeName(name: string, localNames: boolean): void {
  if (name.length > 253) throw forbidden(2, "a host name is longer than any");
  if (NOWHERE.test(name)) throw forbidden(2, `the name ${name} leads nowhere`);
  if (localNames && SINGLE_LABEL.test(name)) return;
  if (!NAME.test(name)) throw forbidden(2, "a host is not a name of at least two labels");
  if (!localNames && LOCAL.test(name)) throw forbidden(2, `the name ${name} leads inside this network`);
}

function forbidden(rule: EgressRule, message: string): EgressError {
  return new EgressError("forbidden", message, undefined, rule);
}
