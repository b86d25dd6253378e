/**
 * Who a case, or somebody's question, means: turned into the principal that the provers would make. Pure.
 * Callers: cases.ts, and whoever explains what a caller may do.
 */
import type { JsonValue } from "#base/json.ts";
import type { Principal } from "#core/principal.ts";
import { CertificateMap, type CertificateRule } from "#policy/certificates.ts";
import type { Asker } from "#policy/explain.ts";
import { principalOf } from "#policy/roles.ts";
import { principalFrom, tokenPrincipalId } from "#policy/tokens/rules.ts";
import type { TokensConfig } from "#policy/tokens/schema.ts";
import type { PolicyCase, PolicyFile } from "./schema.ts";

export type CaseCaller = PolicyCase["as"];

export function askerOf(caller: CaseCaller, file: Pick<PolicyFile, "tokens" | "certificates">): Asker {
  if (caller === "nobody") return { kind: "nobody" };
  if ("role" in caller) return keyAsker(caller);
  if ("claims" in caller) return tokenAsker(caller.issuer, caller.claims as Claims, file.tokens);
  return certificateAsker(caller.certificate, file.certificates ?? []);
}

type Claims = Readonly<Record<string, JsonValue>>;

function keyAsker(caller: Extract<CaseCaller, { role: unknown }>): Asker {
  const { tenant, role, scopes, models, adapters, tools, networks } = caller;
  const principal = principalOf({
    id: "key_of_the_case",
    tenant,
    role,
    ...(scopes === undefined ? {} : { scopes }),
    reach: {
      ...(models === undefined ? {} : { models }),
      ...(adapters === undefined ? {} : { adapters }),
      ...(tools === undefined ? {} : { tools }),
      ...(networks === undefined ? {} : { networks }),
    },
  });
  return { kind: "known", principal, says: `a key of ${tenant} with the role ${role}` };
}

/** A token that was verified: signature, audience and times are not looked at. */
function tokenAsker(issuer: string, claims: Claims, tokens: TokensConfig | undefined): Asker {
  const rules = tokens?.issuers.find((each) => each.issuer === issuer)?.rules;
  if (rules === undefined) return { kind: "refused", status: 401, says: `no tokens of ${issuer} are taken` };
  const subject = typeof claims["sub"] === "string" ? claims["sub"] : "subject";
  const made = principalFrom(rules, issuer, subject, claims);
  if ("reason" in made) return { kind: "refused", status: 403, says: `a token of ${issuer}, and ${made.reason}` };
  return {
    kind: "known",
    principal: made,
    says: `a token of ${issuer}: ${whoIs(made)} (${tokenPrincipalId(issuer, subject)})`,
  };
}

/** @param name a SPIFFE id, or a subject as RFC 4514 writes it */
function certificateAsker(name: string, rules: readonly CertificateRule[]): Asker {
  const spiffe = /^spiffe:/i.test(name);
  const certificate = {
    fingerprint: "",
    subject: spiffe ? "" : name,
    uris: spiffe ? [name] : [],
    notBefore: 0,
    notAfter: Number.POSITIVE_INFINITY,
  };
  const principal = new CertificateMap(rules).find(certificate);
  return principal === undefined
    ? { kind: "refused", status: 401, says: `no rule names the certificate of ${name}` }
    : { kind: "known", principal, says: `the certificate of ${name}: ${whoIs(principal)}` };
}

function whoIs({ tenant, role }: Principal): string {
  return `tenant ${tenant}, role ${role}`;
}
