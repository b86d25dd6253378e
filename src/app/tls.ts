/**
 * TLS of the two listeners: which files are whose, when they are looked at again, and when they run out. Callers: serve.ts.
 */
import type { Log } from "#base/log.ts";
import { Gauge, type Registry } from "#base/metrics.ts";
import type { Settings } from "#config/settings.ts";
import type { ClientCertificates } from "#http/tls.ts";
import type { RenewedTls } from "./renewed-tls.ts";
import { StartupError } from "./startup-error.ts";
import type { TlsFiles } from "./tls-files.ts";

export interface Tls {
  readonly public: RenewedTls | undefined;
  readonly ops: RenewedTls | undefined;
  readonly warnings: readonly string[];
  close(): void;
}

const LOOK_MS = 2000;
const DAY_MS = 86_400_000;
const CLIENTS: readonly ClientCertificates[] = ["none", "optional", "required"];

/** @throws StartupError */
export async function openTls(settings: Settings, log: Log): Promise<Tls> {
  const files = { public: publicFiles(settings), ops: opsFiles(settings) };
  checkAlone(settings, files.public);
  if (files.public === undefined && files.ops === undefined)
    return { public: undefined, ops: undefined, warnings: [], close: () => {} };
  const { RenewedTls } = await import("./renewed-tls.ts");
  const open = (listener: string, wanted: TlsFiles | undefined) =>
    wanted === undefined ? undefined : new RenewedTls(listener, wanted, log);
  const doors = { public: open("public", files.public), ops: open("ops", files.ops) };
  const all = [doors.public, doors.ops].filter((door) => door !== undefined);
  const onHangup = (): void => {
    for (const door of all) door.renew();
  };
  const timers = [setInterval(() => all.forEach((door) => void door.tellExpiry()), DAY_MS)];
  if (settings.enableSslRefresh) timers.push(setInterval(() => all.forEach((door) => void door.look()), LOOK_MS));
  for (const timer of timers) timer.unref();
  process.on("SIGHUP", onHangup);
  return {
    ...doors,
    warnings: [...new Set(all.flatMap(({ warnings }) => warnings))],
    close: () => {
      process.off("SIGHUP", onHangup);
      for (const timer of timers) clearInterval(timer);
    },
  };
}

function publicFiles(settings: Settings): TlsFiles | undefined {
  const { sslCertfile, sslKeyfile, sslCertReqs } = settings;
  if (sslCertfile === undefined) return undefined;
  return withClients(settings, settings.sslCaCerts, sslCertReqs, {
    certificate: sslCertfile,
    key: sslKeyfile ?? sslCertfile,
  });
}

/** Its own, else the public listener's; on a Unix socket its own only, as the file system is the wall there. */
function opsFiles(settings: Settings): TlsFiles | undefined {
  const { opsSsl, opsUds, opsSslCertfile, opsSslKeyfile, sslCertfile, sslKeyfile } = settings;
  const own = opsSslCertfile !== undefined;
  const certificate = opsSslCertfile ?? sslCertfile;
  if (!opsSsl || certificate === undefined || (opsUds !== undefined && !own)) return undefined;
  const key = opsSslKeyfile ?? (own ? certificate : (sslKeyfile ?? certificate));
  const authorities = settings.opsSslCaCerts ?? settings.sslCaCerts;
  return withClients(settings, authorities, settings.opsSslCertReqs ?? settings.sslCertReqs, { certificate, key });
}

function withClients(
  { sslKeyfilePasswordFile, sslCrlFile, sslCiphers }: Settings,
  clientAuthorities: string | undefined,
  wanted: number,
  pair: Pick<TlsFiles, "certificate" | "key">,
): TlsFiles {
  const clients = CLIENTS[wanted] ?? "required";
  if (clients !== "none" && clientAuthorities === undefined)
    throw new StartupError("--ssl-cert-reqs 1 and 2 need --ssl-ca-certs: the authorities whose clients are taken");
  return {
    ...pair,
    password: sslKeyfilePasswordFile,
    clientAuthorities,
    revocationLists: sslCrlFile,
    ciphers: sslCiphers,
    clients,
  };
}

/** Settings that would do nothing, where somebody relies on them. */
function checkAlone(settings: Settings, files: TlsFiles | undefined): void {
  const { sslKeyfile, sslCaCerts, sslCertReqs, sslCrlFile, clientCertificates } = settings;
  const asked = sslCertReqs > 0 || (settings.opsSslCertReqs ?? 0) > 0;
  if (files === undefined && (sslKeyfile !== undefined || sslCaCerts !== undefined || sslCertReqs > 0))
    throw new StartupError("--ssl-keyfile, --ssl-ca-certs and --ssl-cert-reqs need --ssl-certfile");
  if (!asked && (sslCaCerts !== undefined || sslCrlFile !== undefined || clientCertificates !== undefined))
    throw new StartupError(
      "--ssl-ca-certs, --ssl-crl-file and --client-certificates need --ssl-cert-reqs 1 or 2: no client is asked otherwise",
    );
}

/** Read at every scrape: a renewal shows at once. */
export function registerTlsMetrics(registry: Registry, tls: Pick<Tls, "public" | "ops"> | undefined): void {
  new Gauge({
    name: "castellan_tls_certificate_expiry",
    help: "When the certificate of a listener runs out, in seconds of Unix time.",
    labelNames: ["listener"],
    registers: [registry],
    collect() {
      for (const listener of ["public", "ops"] as const) {
        const door = tls?.[listener];
        if (door !== undefined) this.set({ listener }, door.expiresAt / 1000);
      }
    },
  });
}
