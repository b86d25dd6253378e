/**
 * The files of TLS: read, judged, and made into material, or refused with a sentence about what to do.
 *
 * Invariants: a key or password that others can read is refused (a file of root's may be readable by its group); key and
 * certificate belong together; nothing that has run out, or is for clients only, is taken for the server's own.
 * Callers: tls.ts, at start and at every renewal.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from "node:fs";
import { isForeign } from "#base/owner.ts";
import { Secret } from "#base/secret.ts";
import { type ClientCertificates, checkMaterial, type TlsMaterial } from "#http/tls.ts";
import { filesSignature } from "./file-signature.ts";
import { isOpenToOthers } from "./secret-file.ts";
import { StartupError } from "./startup-error.ts";

export interface TlsFiles {
  readonly certificate: string;
  /** May be the certificate's file. */
  readonly key: string;
  readonly password: string | undefined;
  readonly clientAuthorities: string | undefined;
  readonly revocationLists: string | undefined;
  readonly ciphers: string | undefined;
  readonly clients: ClientCertificates;
}

export interface LoadedTls {
  readonly material: TlsMaterial;
  /** Unix milliseconds: the server's own certificate. */
  readonly expiresAt: number;
  /** PEM of the server's own certificate. */
  readonly own: string;
  /** For the operator; nothing that keeps it from working. */
  readonly warnings: readonly string[];
}

const MAX_BYTES = 1 << 20;
export const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g;
const PEM_LIST = /-----BEGIN X509 CRL-----[\s\S]*?-----END X509 CRL-----/g;
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

/** @throws StartupError */
export function loadTls(files: TlsFiles, now = Date.now()): LoadedTls {
  const chain = pemBlocks(files.certificate, PEM_CERTIFICATE, "certificate");
  const certificates = chain.map((text) => parseCertificate(text, files.certificate));
  const [own, ...above] = certificates as [X509Certificate, ...X509Certificate[]];
  const key = readKey(files);
  judgeOwn(own, key, files, now);
  const wanted = files.clients !== "none";
  const material: TlsMaterial = {
    key: new Secret(key.export({ type: "pkcs8", format: "pem" }) as string),
    chain: chain.join("\n"),
    clientAuthorities: wanted ? pemBlocks(files.clientAuthorities ?? "", PEM_CERTIFICATE, "certificate") : [],
    revocationLists:
      wanted && files.revocationLists !== undefined ? pemBlocks(files.revocationLists, PEM_LIST, "CRL") : [],
    ...(files.ciphers === undefined ? {} : { ciphers: files.ciphers }),
  };
  const authorities = material.clientAuthorities.map((text) => parseCertificate(text, files.clientAuthorities ?? ""));
  tryMaterial(material, files);
  return {
    material,
    expiresAt: Date.parse(own.validTo),
    own: chain[0] ?? "",
    warnings: [...chainWarnings(own, above, files), ...authorityWarnings(authorities, files, now)],
  };
}

/** What changes when one of the files does, links followed. */
export function tlsSignature(files: TlsFiles): string {
  const { certificate, key, password, clientAuthorities, revocationLists } = files;
  return filesSignature([certificate, key, password, clientAuthorities, revocationLists]);
}

function judgeOwn(own: X509Certificate, key: KeyObject, { certificate, key: keyFile }: TlsFiles, now: number): void {
  if (!own.checkPrivateKey(key))
    throw new StartupError(`the key in ${keyFile} does not belong to the certificate in ${certificate}`);
  if (Date.parse(own.validTo) < now)
    throw new StartupError(`the certificate in ${certificate} ran out on ${own.validTo}`);
  if (Date.parse(own.validFrom) > now)
    throw new StartupError(`the certificate in ${certificate} is not valid before ${own.validFrom}`);
  const usage = own.keyUsage as string[] | undefined;
  if (usage !== undefined && !usage.includes(SERVER_AUTH))
    throw new StartupError(`the certificate in ${certificate} is not for servers (extended key usage)`);
}

function chainWarnings(own: X509Certificate, above: readonly X509Certificate[], files: TlsFiles): string[] {
  const warnings: string[] = [];
  if (own.subjectAltName === undefined)
    warnings.push(`the certificate in ${files.certificate} has no subjectAltName: no client of today takes it`);
  let below = own;
  for (const next of above) {
    if (!below.checkIssued(next))
      warnings.push(`in ${files.certificate} a certificate does not follow its issuer: clients may not find a root`);
    below = next;
  }
  return warnings;
}

function authorityWarnings(authorities: readonly X509Certificate[], files: TlsFiles, now: number): string[] {
  const out = authorities.filter(({ validTo }) => Date.parse(validTo) < now).length;
  return out === 0
    ? []
    : [`${out} of the authorities in ${files.clientAuthorities} ran out: their clients are refused`];
}

/** OpenSSL's own judgement: sizes of keys, the list of suites. */
function tryMaterial(material: TlsMaterial, files: TlsFiles): void {
  try {
    checkMaterial(material, files.clients);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    if (/no cipher match/i.test(text))
      throw new StartupError("--ssl-ciphers names no suite that is known and sound enough");
    if (/key too small/i.test(text))
      throw new StartupError(`the key in ${files.key} is too short: RSA needs 2048 bits`);
    throw new StartupError(`TLS cannot be set up with ${files.certificate}: ${text}`);
  }
}

function readKey({ key: path, password }: TlsFiles): KeyObject {
  const text = readPrivate(path);
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) throw new StartupError(`${path} holds no private key in PEM`);
  const encrypted = /-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text);
  if (encrypted && password === undefined)
    throw new StartupError(`the key in ${path} is encrypted: name its password's file by --ssl-keyfile-password-file`);
  const passphrase = encrypted && password !== undefined ? readPrivate(password).replace(/\r?\n$/, "") : undefined;
  try {
    return createPrivateKey({ key: text, ...(passphrase === undefined ? {} : { passphrase }) });
  } catch {
    throw new StartupError(
      encrypted ? `the password in ${password} does not open the key in ${path}` : `the key in ${path} is damaged`,
    );
  }
}

function parseCertificate(text: string, path: string): X509Certificate {
  try {
    return new X509Certificate(text);
  } catch {
    throw new StartupError(`a certificate in ${path} is damaged`);
  }
}

/** @throws StartupError */
export function pemBlocks(path: string, shape: RegExp, what: string): string[] {
  const blocks = readSmall(path, () => undefined).match(shape);
  if (blocks === null) throw new StartupError(`${path} holds no ${what} in PEM`);
  return [...blocks];
}

/** A file that nobody else can read. @throws StartupError */
export function readPrivate(path: string): string {
  return readSmall(path, (stats) => {
    if (isForeign(stats) && stats.uid !== 0) return "belongs to another user";
    if (!isOpenToOthers(stats)) return undefined;
    return "can be read or written by others: run chmod 600 on it, and replace the key if they are not trusted";
  });
}

function readSmall(path: string, problem: (stats: Stats) => string | undefined): string {
  let descriptor: number;
  try {
    // NONBLOCK: a FIFO must not hang the start.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new StartupError(`${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? "error"})`);
  }
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile() || stats.size > MAX_BYTES) throw new StartupError(`${path} is no file of at most 1 MiB`);
    const found = problem(stats);
    if (found !== undefined) throw new StartupError(`${path} ${found}`);
    return readFileSync(descriptor, "utf8");
  } finally {
    closeSync(descriptor);
  }
}
