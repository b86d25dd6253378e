/**
 * What is said of tokens and certificates, in the policy file or in the files of flags, for whoever explains it.
 * Callers: admin.ts, `castellan policy explain`.
 */
import type { Settings } from "#config/settings.ts";
import { CertificateRules } from "#policy/certificates.ts";
import type { PolicyFile } from "#policy/file/schema.ts";
import { operatorYaml } from "./operator-yaml.ts";
import { readTokenFile } from "./tokens.ts";

/** @throws StartupError a file of a flag is not right */
export function callerWords(
  { jwtConfig, clientCertificates }: Pick<Settings, "jwtConfig" | "clientCertificates">,
  file: Pick<PolicyFile, "tokens" | "certificates">,
): Pick<PolicyFile, "tokens" | "certificates"> {
  const tokens = file.tokens ?? (jwtConfig === undefined ? undefined : readTokenFile(jwtConfig).config);
  const certificates =
    file.certificates ??
    (clientCertificates === undefined ? undefined : operatorYaml(clientCertificates, CertificateRules));
  return { ...(tokens && { tokens }), ...(certificates && { certificates }) };
}
