/**
 * Where a request may go: schemes, hosts, and which origin may see the credential. Pure; no socket is opened here.
 *
 * Invariants: a URL that passes `admit` has a scheme and host that the caller named; the credential belongs to
 * exactly one origin. Classes of addresses (private, link-local, metadata services) are judged where the socket
 * is opened, not here: a name says nothing about where it leads.
 * Callers: fetch.ts for every hop; hub.ts to make a policy.
 */
import type { Secret } from "#base/secret.ts";

export interface EgressPolicy {
  /** `huggingface.co`, `127.0.0.1:8080` (a port other than the scheme's own is spelled out), `*.hf.co`. */
  readonly hosts: readonly string[];
  /** Whether `http:` may be used, and then with loopback hosts only. */
  readonly plainLoopback: boolean;
  /** Private networks and this machine, too; else public addresses alone. */
  readonly near: boolean;
  /** CIDR blocks to which nothing goes. */
  readonly refusedNetworks: readonly string[];
  /** Sent as `Authorization: Bearer` to this origin and to no other. */
  readonly bearer?: { readonly origin: string; readonly token: Secret };
}

/** Why a request did not get an answer that can be used. `transient` codes may pass when tried again. */
export type EgressErrorCode = "forbidden" | "redirects" | "network" | "timeout" | "too_large" | "protocol" | "aborted";

/** Which of the rules of docs/egress.md said no. */
export type EgressRule = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8;

export class EgressError extends Error {
  readonly code: EgressErrorCode;
  readonly rule: EgressRule | undefined;
  constructor(code: EgressErrorCode, message: string, cause?: unknown, rule?: EgressRule) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "EgressError";
    this.code = code;
    this.rule = rule;
  }
  get transient(): boolean {
    return this.code === "network" || this.code === "timeout";
  }
}

/** @throws EgressError forbidden: the message names the host and no path or query (those may hold signatures). */
export function admit(url: URL, policy: EgressPolicy): void {
  if (url.username !== "" || url.password !== "") throw forbidden("a URL with a user name or password is not followed");
  const plain = url.protocol === "http:";
  if (!plain && url.protocol !== "https:") throw forbidden(`the scheme ${url.protocol} is not allowed`);
  if (plain && !(policy.plainLoopback && isLoopback(url.hostname))) {
    throw forbidden(`plain http to ${url.host} is not allowed: only https is`);
  }
  if (!policy.hosts.some((rule) => matches(url.host, rule))) throw forbidden(`the host ${url.host} is not allowed`, 3);
}

/** Parses text to a URL that `admit` accepts. @throws EgressError */
export function admittedUrl(text: string, base: URL | undefined, policy: EgressPolicy): URL {
  const url = URL.parse(text, base?.href);
  if (url === null) throw forbidden("the address is not a URL");
  admit(url, policy);
  return url;
}

/** Names and addresses of this machine itself. WHATWG URLs have IPv4 addresses in dotted form already. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname);
}

function matches(host: string, rule: string): boolean {
  // A label of at least one character stands before the dot, so `*.hf.co` is neither hf.co nor evilhf.co.
  return rule.startsWith("*.") ? host.length > rule.length - 1 && host.endsWith(rule.slice(1)) : host === rule;
}

function forbidden(message: string, rule: EgressRule = 1): EgressError {
  return new EgressError("forbidden", message, undefined, rule);
}
