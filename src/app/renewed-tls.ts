/**
 * The TLS of one listener, renewed while the server runs.
 *
 * Invariants: a bad renewal changes nothing and is told; files are taken when they have been the same for two looks, so
 * that a key without its certificate is not. Callers: tls.ts, which loads this only where TLS is spoken.
 */
import type { Log } from "#base/log.ts";
import type { ClientCertificates, TlsMaterial, TlsSource } from "#http/tls.ts";
import { type LoadedTls, loadTls, type TlsFiles, tlsSignature } from "./tls-files.ts";

const DAY_MS = 86_400_000;
/** So long before its end a certificate is talked about. */
const WARN_MS = 14 * DAY_MS;

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
