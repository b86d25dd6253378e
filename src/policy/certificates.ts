/**
 * From a client's certificate to a principal, by the operator's rule table.
 *
 * Invariants (Wall: T61): the certificate was verified by the listener and is valid now, at every request; it has one
 * name that counts: its SPIFFE id, or its subject where it has none; more than one SPIFFE id, or a malformed one, is
 * nobody; the first rule that matches decides; a credential in a header beside it may not be another tenant's, unless
 * the rule says that the holder forwards for others. Pure but for the clock. Callers: app.
 */
import { hash } from "node:crypto";
import { z } from "zod";
import { matches } from "#core/name-patterns.ts";
import { type Principal, ROLES, type Role, SCOPES, type Scope } from "#core/principal.ts";
import { type Attributes, parseDistinguishedName } from "./distinguished-name.ts";
import type { Identify } from "./identify.ts";
import { unauthenticated } from "./keys.ts";
import { networkProblem } from "./networks.ts";
import type { PeerCertificate } from "./peer.ts";
import { principalOf } from "./roles.ts";
import { ruleChain } from "./rule-chain.ts";

const names = z.array(z.string().min(1).max(256)).max(256);

const Rule = z
  .strictObject({
    /** `*` stands for any characters, `/` too; the trust domain is spelled out. */
    spiffe: z
      .string()
      .max(2048)
      .regex(/^spiffe:\/\/[a-z0-9._-]{1,255}\/[A-Za-z0-9._/*?-]+$/, "is spiffe://domain/path, the domain without *")
      .optional(),
    /** Attribute → pattern of its value; the certificate has each of them once, and may have others. */
    subject: z
      .record(z.string().regex(/^[A-Za-z][A-Za-z0-9-]*$/, "is an attribute such as CN"), z.string().min(1).max(1024))
      .refine((wanted) => Object.keys(wanted).length > 0, "names no attribute")
      .optional(),
    tenant: z
      .string()
      .regex(
        /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/,
        "is 1 to 64 letters, digits, dots, dashes and underscores",
      ),
    role: z.enum(Object.keys(ROLES) as [Role, ...Role[]]),
    scopes: z.array(z.enum(SCOPES as [Scope, ...Scope[]])).optional(),
    /** A gateway: the credentials that it carries may be any tenant's. */
    forwards: z.boolean().optional(),
    models: names.optional(),
    adapters: names.optional(),
    tools: names.optional(),
    networks: z
      .array(z.string().refine((text) => networkProblem(text) === undefined, "is no network such as 10.0.0.0/8"))
      .max(256)
      .optional(),
    priority: z.int().optional(),
  })
  .refine(({ spiffe, subject }) => (spiffe === undefined) !== (subject === undefined), "has either spiffe or subject");

export const CertificateRules = z.array(Rule).max(10_000);
export type CertificateRule = z.infer<typeof Rule>;

interface Match {
  readonly principal: Principal;
  readonly forwards: boolean;
}

/** What of a certificate counts: text for the log, and what rules look at. */
type Name =
  | { readonly kind: "spiffe"; readonly text: string }
  | { readonly kind: "subject"; readonly text: string; readonly attributes: Attributes };

export class CertificateMap {
  #rules: readonly CertificateRule[];
  #marks: readonly string[];
  readonly #now: () => number;
  /** By the object, which a connection keeps. */
  #known = new WeakMap<PeerCertificate, Match | "nobody">();

  /** @param rules none: a certificate names nobody, and is held to its validity only */
  constructor(rules: readonly CertificateRule[], now: () => number = Date.now) {
    this.#rules = rules;
    this.#marks = ruleChain("certificates", rules);
    this.#now = now;
  }

  /** From the next request on. */
  replace(rules: readonly CertificateRule[]): void {
    this.#rules = rules;
    this.#marks = ruleChain("certificates", rules);
    this.#known = new WeakMap();
  }

  /** Whether the rules that made a principal hold still. */
  stands(mark: string): boolean {
    return this.#marks.includes(mark);
  }

  /** Whose certificate it is. */
  find(certificate: PeerCertificate): Principal | undefined {
    return this.#match(certificate)?.principal;
  }

  /** @param identify asks `find` where no header names a caller */
  guard(identify: Identify): Identify {
    return (rawHeaders, dialect, peer) => {
      if (peer.certificate === undefined) return identify(rawHeaders, dialect, peer);
      this.#checkValidity(peer.certificate);
      const match = this.#match(peer.certificate);
      const found = identify(rawHeaders, dialect, peer);
      return found instanceof Promise ? found.then((principal) => beside(match, principal)) : beside(match, found);
    };
  }

  #checkValidity({ notBefore, notAfter }: PeerCertificate): void {
    const now = this.#now();
    // Also what is no date: NaN lies nowhere.
    if (now >= notBefore && now <= notAfter) return;
    throw unauthenticated("the client certificate is not valid at this time");
  }

  #match(certificate: PeerCertificate): Match | undefined {
    const known = this.#known.get(certificate) ?? this.#evaluate(certificate) ?? "nobody";
    this.#known.set(certificate, known);
    return known === "nobody" ? undefined : known;
  }

  #evaluate(certificate: PeerCertificate): Match | undefined {
    const name = nameOf(certificate);
    const at = name === undefined ? -1 : this.#rules.findIndex((each) => applies(each, name));
    const rule = this.#rules[at];
    const mark = this.#marks[at];
    if (name === undefined || rule === undefined || mark === undefined) return undefined;
    const { tenant, role, scopes, forwards = false } = rule;
    const principal = principalOf({
      id: certificatePrincipalId(name.text),
      kind: "certificate",
      tenant,
      role,
      reach: reachOf(rule),
      ruledBy: mark,
      ...(scopes === undefined ? {} : { scopes }),
    });
    return { principal, forwards };
  }
}

/** Never two identities: the header's, within the tenant of the certificate's. */
function beside(match: Match | undefined, found: Principal): Principal {
  if (match === undefined || match.forwards || match.principal.tenant === found.tenant) return found;
  throw unauthenticated(`${found.id} came with the certificate of ${match.principal.id}, of another tenant`);
}

/** `crt_` and 128 bits of SHA-256 over the name: the same for every certificate that is issued for it. */
export function certificatePrincipalId(name: string): string {
  return `crt_${hash("sha256", name, "hex").slice(0, 32)}`;
}

function reachOf({ models, adapters, tools, networks, priority }: CertificateRule): Principal["reach"] {
  return {
    ...(models === undefined ? {} : { models }),
    ...(adapters === undefined ? {} : { adapters }),
    ...(tools === undefined ? {} : { tools }),
    ...(networks === undefined ? {} : { networks }),
    ...(priority === undefined ? {} : { priority }),
  };
}

/** The SPIFFE standard: a certificate has one URI, and that is the id. */
function nameOf({ uris, subject }: PeerCertificate): Name | undefined {
  if (uris.some((uri) => /^["']?spiffe:/i.test(uri))) {
    const [text = ""] = uris;
    return uris.length === 1 && isSpiffeId(text) ? { kind: "spiffe", text } : undefined;
  }
  const attributes = parseDistinguishedName(subject);
  return attributes === undefined || attributes.size === 0 ? undefined : { kind: "subject", text: subject, attributes };
}

const SPIFFE_ID = /^spiffe:\/\/[a-z0-9._-]{1,255}((?:\/[A-Za-z0-9._-]+)+)$/;
const LONGEST_SPIFFE_ID = 2048;

function isSpiffeId(text: string): boolean {
  const path = text.length <= LONGEST_SPIFFE_ID ? SPIFFE_ID.exec(text)?.[1] : undefined;
  return path?.split("/").every((segment) => segment !== "." && segment !== "..") === true;
}

function applies(rule: CertificateRule, name: Name): boolean {
  if (name.kind === "spiffe") return rule.spiffe !== undefined && matches(rule.spiffe, name.text);
  if (rule.subject === undefined) return false;
  return Object.entries(rule.subject).every(([type, pattern]) => {
    const values = name.attributes.get(type.toUpperCase()) ?? [];
    return values.length === 1 && matches(pattern, values[0] ?? "");
  });
}
