/**
 * Rows of the settings table about TLS, client certificates and the bounds of connections. Part of settings.ts, which is
 * the one table; names are vLLM's where vLLM has the thing.
 */
import { integer, seconds, string, switched } from "./kinds.ts";

const LISTENERS = "Listeners";
const TLS = "TLS";

export const CONNECTION_SETTINGS = {
  maxConnectionsPerAddress: integer(256, [0, 1_000_000], {
    section: LISTENERS,
    doc: "Connections of one address at once (64 bits of an IPv6 one), per listener, but for loopback and trusted proxies. 0 = any.",
    loosens: "one client can take all connections",
  }),
  maxConnectionAge: seconds(3600, [0, 604_800], {
    section: LISTENERS,
    doc: "Older connections end with their next answer; 0 = none does.",
  }),
} as const;

export const TLS_SETTINGS = {
  sslCertfile: string(undefined, "file", {
    section: TLS,
    doc: "PEM: the certificate and those between it and a root. With it the listeners speak TLS, and nothing else.",
  }),
  sslKeyfile: string(undefined, "file", {
    section: TLS,
    doc: "PEM: the certificate's key, readable by its owner alone.",
    fallbackDoc: "in --ssl-certfile",
  }),
  sslKeyfilePasswordFile: string(undefined, "file", {
    section: TLS,
    doc: "The password of an encrypted key, in a file readable by its owner alone.",
  }),
  sslCaCerts: string(undefined, "file", {
    section: TLS,
    doc: "PEM: the authorities whose client certificates are taken; each may speak for every name.",
  }),
  sslCertReqs: integer(0, [0, 2], {
    section: TLS,
    doc: "Client certificates: 0 none, 1 optional, 2 required. 1 and 2 need --ssl-ca-certs.",
  }),
  sslCrlFile: string(undefined, "file", {
    section: TLS,
    doc: "PEM: lists of revoked client certificates; every authority then needs one that has not run out.",
  }),
  sslCiphers: string(undefined, "list", {
    section: TLS,
    doc: "OpenSSL's list of suites for TLS 1.2; those of 1.3 by names that begin with TLS_.",
    fallbackDoc: "AES-GCM with ECDHE",
    loosens: "suites without forward secrecy or authenticated encryption come in when they are named",
  }),
  enableSslRefresh: switched(false, {
    section: TLS,
    doc: "Look at the files of this section every few seconds and take new ones; SIGHUP does it in any case.",
  }),
  clientCertificates: string(undefined, "file", {
    section: TLS,
    doc: "YAML: which client certificates are which principals, by SPIFFE id or subject.",
  }),
  opsSsl: switched(true, {
    section: TLS,
    doc: "The operations listener speaks TLS when the public one does, but for a Unix socket.",
    loosens: "keys travel in the clear to the operations listener",
  }),
  opsSslCertfile: string(undefined, "file", {
    section: TLS,
    doc: "As --ssl-certfile, for the operations listener alone, on a Unix socket, too.",
    fallbackDoc: "--ssl-certfile",
  }),
  opsSslKeyfile: string(undefined, "file", {
    section: TLS,
    doc: "As --ssl-keyfile, for the operations listener alone.",
    fallbackDoc: "in --ops-ssl-certfile if that is given, else --ssl-keyfile",
  }),
  opsSslCaCerts: string(undefined, "file", {
    section: TLS,
    doc: "As --ssl-ca-certs, for the operations listener alone.",
    fallbackDoc: "--ssl-ca-certs",
  }),
  opsSslCertReqs: integer(undefined, [0, 2], {
    section: TLS,
    doc: "As --ssl-cert-reqs, for the operations listener alone.",
    fallbackDoc: "--ssl-cert-reqs",
  }),
} as const;
