/**
 * The operator's table of client certificates (--client-certificates): read at start, and again at SIGHUP.
 */
import type { Log } from "#base/log.ts";
import type { Settings } from "#config/settings.ts";
import { CertificateMap, CertificateRules } from "#policy/certificates.ts";
import { operatorYaml } from "./operator-yaml.ts";

/** @throws StartupError */
export function clientCertificates({ clientCertificates: path }: Settings, log: Log): CertificateMap {
  if (path === undefined) return new CertificateMap([]);
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
