/**
 * TLS on a listener: what is fixed here, and the material that the operator brings and may renew while it runs.
 *
 * Invariants (Wall: T60): TLS 1.2 at least; suites with forward secrecy and authenticated encryption unless the operator
 * names others, and never one without a key or with a broken cipher; no session is resumed, since a resumed one skips
 * the check of the client's certificate; no renegotiation; HTTP/1.1 only. Callers: listener.ts; app makes the material.
 */
import { constants } from "node:crypto";
import { createSecureContext, type SecureContextOptions, type TlsOptions } from "node:tls";
import type { Secret } from "#base/secret.ts";

/** Whether a listener asks for a client's certificate; one that is given must verify in any case. */
export type ClientCertificates = "none" | "optional" | "required";

export interface TlsMaterial {
  /** PEM, not encrypted. */
  readonly key: Secret;
  /** PEM: the server's own certificate, then those between it and a root. */
  readonly chain: string;
  /** PEM of those who may sign clients; one a text. */
  readonly clientAuthorities: readonly string[];
  /** PEM. With any, each authority needs one that has not run out. */
  readonly revocationLists: readonly string[];
  /** OpenSSL's list, for TLS 1.2 and, by names that begin with TLS_, for 1.3. */
  readonly ciphers?: string;
}

/** The material of now, and word of another. */
export interface TlsSource {
  readonly clients: ClientCertificates;
  material(): TlsMaterial;
  /** @returns ends it */
  onChange(run: () => void): () => void;
}

const SUITES_13 = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256";
const SUITES_12 =
  "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";
/** Stands behind every list, so that none brings these back. */
const NEVER = "!aNULL:!eNULL:!EXPORT:!LOW:!3DES:!RC4:!MD5:!PSK:!SRP:!SEED:!IDEA";
const CURVES = "P-256:P-384";

/** For a server, and for its renewal: `setSecureContext` forgets what it is not told again. */
export function tlsOptions(material: TlsMaterial, clients: ClientCertificates): TlsOptions {
  return {
    ...contextOptions(material, clients),
    requestCert: clients !== "none",
    rejectUnauthorized: clients === "required",
    ALPNProtocols: ["http/1.1"],
  };
}

/** @throws Error of OpenSSL: what of the material cannot be used */
export function checkMaterial(material: TlsMaterial, clients: ClientCertificates): void {
  createSecureContext(contextOptions(material, clients));
}

function contextOptions(material: TlsMaterial, clients: ClientCertificates): SecureContextOptions {
  const { key, chain, clientAuthorities, revocationLists, ciphers } = material;
  return {
    key: key.expose(),
    cert: chain,
    // An empty list would mean every authority that browsers trust.
    ...(clients === "none" ? {} : { ca: [...clientAuthorities] }),
    ...(clients === "none" || revocationLists.length === 0 ? {} : { crl: [...revocationLists] }),
    minVersion: "TLSv1.2",
    ciphers: cipherList(ciphers),
    ecdhCurve: CURVES,
    honorCipherOrder: true,
    // No tickets, and Node's own cache holds nothing: every connection is a whole handshake.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_NO_COMPRESSION,
  };
}

function cipherList(own: string | undefined): string {
  if (own === undefined) return `${SUITES_13}:${SUITES_12}:${NEVER}`;
  return /(?:^|:)TLS_/.test(own) ? `${own}:${NEVER}` : `${SUITES_13}:${own}:${NEVER}`;
}
