/**
 * What a model's upstreams are shown and believed by, renewed while the server runs: the key's file, the authorities, the
 * certificate and its key.
 *
 * Invariants: a bad renewal changes nothing and is told; files are taken when they have been the same for two looks, so
 * that a key without its certificate is not; a new key is among what no log shows before it is used. Requests that have
 * begun end under what they began with (egress' client). Made by upstreams.ts, one a model with files.
 */
import type { Log } from "#base/log.ts";
import type { Redactor } from "#base/redact.ts";
import type { UpstreamCredentials, UpstreamTls } from "#egress/upstream/dial.ts";
import { filesSignature } from "./file-signature.ts";
import { readCredentials, type UpstreamModel } from "./upstream-models.ts";

const LOOK_MS = 2000;

export interface RenewedCredentialsOptions {
  readonly model: Pick<UpstreamModel, "credentials" | "files">;
  /** Of the model, in the log. */
  readonly label: string;
  readonly hide: Redactor["also"];
  readonly log: Log;
}

export class RenewedCredentials {
  readonly #options: RenewedCredentialsOptions;
  readonly #paths: readonly (string | undefined)[];
  #present: UpstreamCredentials;
  /** Of the files as they were judged last (at the start they were read before this was made), and as they were seen last. */
  #judged = "";
  #seen = "";

  constructor(options: RenewedCredentialsOptions) {
    this.#options = options;
    this.#present = options.model.credentials;
    const { "key-file": key, ca, cert, "cert-key": certKey } = options.model.files;
    this.#paths = [key, ca, cert, certKey];
  }

  get hasFiles(): boolean {
    return this.#paths.some((path) => path !== undefined);
  }

  readonly current = (): UpstreamCredentials => this.#present;

  /** Takes what is in the files now. Never throws. */
  renew(): void {
    this.#judged = filesSignature(this.#paths);
    this.#seen = this.#judged;
    const { model, label, hide, log } = this.#options;
    try {
      const next = readCredentials(model.files);
      const { key, tls } = this.#present;
      const sameKey = next.key?.expose() === key?.expose();
      const sameTls = spelled(next.tls) === spelled(tls);
      if (sameKey && sameTls) return;
      if (next.key !== undefined) hide(next.key);
      this.#present = { ...next, ...(sameTls && tls !== undefined ? { tls } : {}) };
      log("info", "upstreams have new credentials", { model: label, key: !sameKey, tls: !sameTls });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      log("error", "upstreams keep their credentials: the new files cannot be used", { model: label, reason });
    }
  }

  /** Renews when the files have changed and come to rest. */
  look(): void {
    const before = this.#seen;
    this.#seen = filesSignature(this.#paths);
    if (this.#seen === before && this.#seen !== this.#judged) this.renew();
  }
}

function spelled(tls: UpstreamTls | undefined): string {
  return JSON.stringify([tls?.ca, tls?.certificate, tls?.key?.expose(), tls?.serverName]);
}

/** Looks every few seconds, and at SIGHUP. @returns ends it */
export function followFiles(all: readonly RenewedCredentials[]): () => void {
  const files = all.filter(({ hasFiles }) => hasFiles);
  if (files.length === 0) return () => {};
  const renew = (): void => {
    for (const each of files) each.renew();
  };
  const timer = setInterval(() => {
    for (const each of files) each.look();
  }, LOOK_MS);
  timer.unref();
  process.on("SIGHUP", renew);
  return () => {
    clearInterval(timer);
    process.off("SIGHUP", renew);
  };
}
