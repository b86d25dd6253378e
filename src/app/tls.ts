/**
 * TLS of the two listeners: which files are whose, and new material while the server runs.
 *
 * Invariants: a bad renewal changes nothing and is told; files are taken when they have been the same for two looks, so
 * that a key without its certificate is not. Callers: serve.ts.
 */
import type { Log } from "#base/log.ts";
import { Gauge, type Registry } from "#base/metrics.ts";
import type { Settings } from "#config/settings.ts";
import type { ClientCertificates, TlsMaterial, TlsSource } from "#http/tls.ts";
import { StartupError } from "./startup-error.ts";
import { type LoadedTls, loadTls, type TlsFiles, tlsSignature } from "./tls-files.ts";

export interface Tls {
  readonly public: RenewedTls | undefined;
  readonly ops: RenewedTls | undefined;
  readonly warnings: readonly string[];
  close(): void;
}

const LOOK_MS = 2000;
const DAY_MS = 86_400_000;
/** So long before its end a certificate is talked about. */
const WARN_MS = 14 * DAY_MS;
const CLIENTS: readonly ClientCertificates[] = ["none", "optional", "required"];

/** @throws StartupError */
export function openTls(settings: Settings, log: Log): Tls {
  const files = { public: publicFiles(settings), ops: opsFiles(settings) };
  checkAlone(settings, files.public);
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
  if (all.length > 0) process.on("SIGHUP", onHangup);
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

export class RenewedTls implements TlsSource {
  readonly clients: ClientCertificates;
  readonly warnings: readonly string[];
  readonly #listener: string;
  readonly #files: TlsFiles;
  readonly #log: Log;
  readonly #followers = new Set<() => void>();
  #loaded: LoadedTls;
  /** Of the files as they were judged last, and as they were seen last. */
  #judged: string;
  #seen: string;

  /** @throws StartupError */
  constructor(listener: string, files: TlsFiles, log: Log) {
    this.#listener = listener;
    this.#files = files;
    this.#log = log;
    this.clients = files.clients;
    this.#judged = tlsSignature(files);
    this.#seen = this.#judged;
    this.#loaded = loadTls(files);
    this.warnings = [...this.#loaded.warnings, ...this.#expiryWarning()];
  }

  material(): TlsMaterial {
    return this.#loaded.material;
  }

  /** PEM of the certificate that clients of now get. */
  get own(): string {
    return this.#loaded.own;
  }

  /** Unix milliseconds. */
  get expiresAt(): number {
    return this.#loaded.expiresAt;
  }

  onChange(run: () => void): () => void {
    this.#followers.add(run);
    return () => this.#followers.delete(run);
  }

  /** Takes what is in the files now. Never throws. */
  renew(): void {
    this.#judged = tlsSignature(this.#files);
    this.#seen = this.#judged;
    const fields = { listener: this.#listener };
    const before = this.#loaded;
    try {
      this.#loaded = loadTls(this.#files);
      for (const run of this.#followers) run();
    } catch (error) {
      this.#loaded = before;
      const reason = error instanceof Error ? error.message : String(error);
      this.#log("error", "TLS keeps what it had: the new files cannot be used", { ...fields, reason });
      return;
    }
    this.#log("info", "TLS has new files", { ...fields, expires: new Date(this.expiresAt).toISOString() });
    for (const warning of this.#loaded.warnings) this.#log("warn", warning, fields);
    this.tellExpiry();
  }

  /** Renews when the files have changed and come to rest. */
  look(): void {
    const before = this.#seen;
    this.#seen = tlsSignature(this.#files);
    if (this.#seen === before && this.#seen !== this.#judged) this.renew();
  }

  tellExpiry(): void {
    for (const warning of this.#expiryWarning()) this.#log("warn", warning, { listener: this.#listener });
  }

  #expiryWarning(): string[] {
    const left = this.expiresAt - Date.now();
    if (left > WARN_MS) return [];
    const when = new Date(this.expiresAt).toISOString();
    return [`the certificate in ${this.#files.certificate} ${left < 0 ? "ran" : "runs"} out at ${when}`];
  }
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
