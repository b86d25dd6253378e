/**
 * Whose credentials are taken, out of flags and the policy file: keys, signed tokens, client certificates, and what is
 * said of their tenants. Called by serve.ts.
 */
import type { Log } from "#base/log.ts";
import type { Settings } from "#config/settings.ts";
import type { CertificateMap } from "#policy/certificates.ts";
import { withinTenants } from "#policy/file/tenants.ts";
import { type Identify, identifyBy, type Provers } from "#policy/identify.ts";
import type { PeerCertificate } from "#policy/peer.ts";
import type { TokenOptions } from "#policy/tokens/verify.ts";
import type { BatchTickets, TicketParts } from "./batch-tickets.ts";
import type { Keys } from "./keys.ts";
import type { Policy } from "./policy.ts";
import { StartupError } from "./startup-error.ts";
import type { CallerTokens } from "./tokens.ts";

/** Those of the policy file, else of --jwt-config. */
export async function takenTokens(
  settings: Settings,
  rules: Policy,
  options: TokenOptions,
): Promise<CallerTokens | undefined> {
  const { tokens: config } = rules.current().file;
  const { jwtConfig, apiKey } = settings;
  const said = config !== undefined;
  rules.onReload(({ tokens }) => {
    if ((tokens !== undefined) !== said)
      throw new StartupError("the section tokens came or went: that takes a restart");
    return () => {};
  });
  if (!said && jwtConfig === undefined) return undefined;
  const { callerTokens, readTokenFile } = await import("./tokens.ts");
  if (!said) return callerTokens(readTokenFile(jwtConfig ?? ""), apiKey, options);
  const taken = await callerTokens({ path: rules.path ?? "", config }, apiKey, options);
  rules.onReload(({ tokens = config }) => taken.prepare(tokens));
  return taken;
}

/** The table of client certificates, where clients are asked for them. */
export async function clientTable(settings: Settings, rules: Policy, log: Log): Promise<CertificateMap | undefined> {
  const { sslCertReqs, opsSslCertReqs = 0 } = settings;
  if (sslCertReqs > 0 || opsSslCertReqs > 0)
    return (await import("./client-certificates.ts")).clientCertificates(settings, rules, log);
  if (rules.current().file.certificates !== undefined)
    throw new StartupError(
      `the certificates of ${rules.path} need --ssl-cert-reqs 1 or 2: no client is asked otherwise`,
    );
  return undefined;
}

export interface Callers {
  readonly keys: Pick<Keys, "find">;
  readonly tokens: CallerTokens | undefined;
  readonly certificates: CertificateMap | undefined;
  readonly rules: Policy;
  readonly batchWork: { readonly tickets: Pick<BatchTickets, "find"> };
}

/** Whether the rules that made a principal of a token or certificate hold still. */
export function rulesStand({ tokens, certificates }: Pick<Callers, "tokens" | "certificates">): TicketParts["stands"] {
  return (kind, mark) => (kind === "token" ? tokens?.stands(mark) : certificates?.stands(mark)) === true;
}

export function identifier({ rules, ...callers }: Callers): Identify {
  return withinTenants(provenBy(callers), () => rules.current().tenants);
}

function provenBy({ keys, tokens, certificates, batchWork }: Omit<Callers, "rules">): Identify {
  const { tickets } = batchWork;
  const provers: Provers = {
    keys: (key, kept) => tickets.find(key) ?? keys.find(key, kept),
    ...(tokens && { tokens: tokens.prover }),
  };
  if (certificates === undefined) return identifyBy(provers);
  const find = (certificate: PeerCertificate) => certificates.find(certificate);
  return certificates.guard(identifyBy({ ...provers, certificates: find }));
}
