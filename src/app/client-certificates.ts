/**
 * The operator's table of client certificates: that of the policy file, else of --client-certificates, which is read at
 * start and again at SIGHUP.
 */
import type { Log } from "#base/log.ts";
import type { Settings } from "#config/settings.ts";
import { CertificateMap, CertificateRules } from "#policy/certificates.ts";
import { operatorYaml } from "./operator-yaml.ts";
import type { Policy } from "./policy.ts";

/** @throws StartupError */
export function clientCertificates(settings: Settings, policy: Policy, log: Log): CertificateMap {
  const { clientCertificates: path } = settings;
  if (path === undefined) return ofPolicy(policy);
  const map = new CertificateMap(operatorYaml(path, CertificateRules));
  process.on("SIGHUP", () => {
    try {
      map.replace(operatorYaml(path, CertificateRules));
      log("info", "the table of client certificates was read anew");
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log("error", "the table of client certificates stays as it was", { reason });
    }
  });
  return map;
}

function ofPolicy(policy: Policy): CertificateMap {
  const map = new CertificateMap(policy.current().file.certificates ?? []);
  policy.onReload(
    ({ certificates = [] }) =>
      () =>
        map.replace(certificates),
  );
  return map;
}
