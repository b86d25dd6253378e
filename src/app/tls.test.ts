import assert from "node:assert/strict";
import { createPrivateKey } from "node:crypto";
import { chmodSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, type TestContext, test } from "node:test";
import { silentLog } from "#base/log.ts";
import { createRegistry, printMetrics } from "#base/metrics.ts";
import { resolveSettings } from "#config/resolve.ts";
import { type Authority, authority, CLIENT_AUTH, type Issued } from "#test/fixtures/certificates.ts";
import { RenewedTls } from "./renewed-tls.ts";
import { StartupError } from "./startup-error.ts";
import { openTls, registerTlsMetrics } from "./tls.ts";
import { loadTls, type TlsFiles } from "./tls-files.ts";

const DAY = 86_400_000;
let ca: Authority;
let server: Issued;
before(async () => {
  ca = await authority();
  server = await ca.issue();
});

interface Folder {
  readonly path: (name: string) => string;
  write(name: string, text: string, mode?: number): string;
  files(more?: Partial<TlsFiles>): TlsFiles;
}

function folder(t: TestContext): Folder {
  const root = mkdtempSync(join(tmpdir(), "castellan-tls-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const path = (name: string): string => join(root, name);
  const write = (name: string, text: string, mode = 0o600): string => {
    writeFileSync(path(name), text);
    chmodSync(path(name), mode);
    return path(name);
  };
  write("cert.pem", server.cert, 0o644);
  write("key.pem", server.key);
  const files = (more: Partial<TlsFiles> = {}): TlsFiles => ({
    certificate: path("cert.pem"),
    key: path("key.pem"),
    password: undefined,
    clientAuthorities: undefined,
    revocationLists: undefined,
    ciphers: undefined,
    clients: "none",
    ...more,
  });
  return { path, write, files };
}

function refusal(files: TlsFiles): string {
  try {
    loadTls(files);
  } catch (error) {
    assert.ok(error instanceof StartupError, String(error));
    return error.message;
  }
  return "taken";
}

test("a pair that fits is taken: in two files, in one, over links, encrypted, from root for a group", async (t) => {
  const { path, write, files } = folder(t);
  assert.deepEqual(loadTls(files()).warnings, []);
  assert.equal(loadTls(files()).own.trim(), server.cert.trim());
  const both = write("both.pem", server.cert + server.key);
  assert.equal(refusal(files({ certificate: both, key: both })), "taken");
  symlinkSync(path("key.pem"), path("link.pem"));
  assert.equal(refusal(files({ key: path("link.pem") })), "taken");
  const cipher = { type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase: "open sesame" } as const;
  const secret = write("secret.pem", createPrivateKey(server.key).export(cipher) as string);
  const password = write("password", "open sesame\n");
  assert.equal(refusal(files({ key: secret, password })), "taken");
  assert.match(
    refusal(files({ key: secret })),
    /is encrypted: name its password's file by --ssl-keyfile-password-file/,
  );
  assert.match(refusal(files({ key: secret, password: write("wrong", "x") })), /does not open/);
  chmodSync(password, 0o644);
  assert.match(refusal(files({ key: secret, password })), /can be read or written by others/);
});

test("a key that others can read is refused", (t) => {
  const { path, files } = folder(t);
  for (const mode of [0o644, 0o604, 0o602, 0o660, 0o666]) {
    chmodSync(path("key.pem"), mode);
    assert.match(refusal(files()), /can be read or written by others: run chmod 600/, mode.toString(8));
  }
  chmodSync(path("key.pem"), 0o640);
  assert.equal(refusal(files()), process.getuid?.() === 0 ? "taken" : refusal(files()));
});

test("what does not fit is said in a sentence", async (t) => {
  const { path, write, files } = folder(t);
  const says = async (text: RegExp, issued: Issued, more: Partial<TlsFiles> = {}): Promise<void> => {
    const pair = { certificate: write("c.pem", issued.cert, 0o644), key: write("k.pem", issued.key) };
    assert.match(refusal(files({ ...pair, ...more })), text);
  };
  assert.match(refusal(files({ certificate: path("nowhere") })), /nowhere cannot be read \(ENOENT\)/);
  assert.match(refusal(files({ key: path("nowhere") })), /nowhere cannot be read \(ENOENT\)/);
  assert.match(refusal(files({ certificate: path("key.pem") })), /holds no certificate in PEM/);
  assert.match(refusal(files({ key: write("x", server.cert) })), /holds no private key in PEM/);
  assert.match(refusal(files({ certificate: path("") })), /is no file/);
  await says(/does not belong to the certificate/, { ...server, key: (await ca.issue()).key });
  await says(/ran out on/, await ca.issue({ from: -2 * DAY, until: -DAY }));
  await says(/is not valid before/, await ca.issue({ from: DAY, until: 2 * DAY }));
  await says(/is not for servers/, await ca.issue({ usage: [CLIENT_AUTH] }));
  await says(/a certificate in .* is damaged/, { ...server, cert: server.cert.replace(/M[A-Za-z0-9]{20}/, "MAAA") });
  await says(/the key in .* is damaged/, { ...server, key: server.key.replace(/M[A-Za-z0-9]{20}/, "MAAA") });
  await says(/names no suite/, server, { ciphers: "RC4" });
  await says(/names no suite/, server, { ciphers: "nothing" });
  const clients = { clients: "required" } as const;
  await says(/holds no certificate in PEM/, server, { ...clients, clientAuthorities: path("key.pem") });
  const authorities = { ...clients, clientAuthorities: write("ca.pem", ca.cert) };
  await says(/taken/, server, authorities);
  await says(/holds no CRL in PEM/, server, { ...authorities, revocationLists: path("cert.pem") });
  await says(/taken/, server, { ...authorities, revocationLists: write("crl", await ca.revoke([])) });
});

test("warnings: no name that clients look at, a chain out of order, an end that is near", async (t) => {
  const { write, files } = folder(t);
  const warned = (issued: Issued, chain = ""): readonly string[] =>
    new RenewedTls(
      "public",
      files({ certificate: write("c.pem", issued.cert + chain), key: write("k.pem", issued.key) }),
      silentLog,
    ).warnings;
  assert.match(warned(await ca.issue({ names: [] })).join(), /no subjectAltName/);
  assert.match(warned(server, (await authority("CN=Other")).cert).join(), /does not follow its issuer/);
  assert.deepEqual(warned(server, ca.cert), []);
  assert.match(warned(await ca.issue({ until: 10 * DAY })).join(), /runs out at/);
});

test("a renewal is taken when it came to rest, and a bad one changes nothing", async (t) => {
  const { write, files } = folder(t);
  const logged: [string, string][] = [];
  const door = new RenewedTls("public", files(), (level, message) => void logged.push([level, message]));
  let changes = 0;
  const stop = door.onChange(() => {
    changes++;
  });
  door.look();
  door.look();
  const fresh = await ca.issue({ until: 30 * DAY });
  write("key.pem", fresh.key);
  door.look();
  write("cert.pem", fresh.cert, 0o644);
  // Still moving: the key alone would not have fitted.
  door.look();
  assert.deepEqual([changes, logged], [0, []]);
  door.look();
  assert.equal(changes, 1);
  assert.equal(door.own.trim(), fresh.cert.trim());
  door.look();
  assert.equal(changes, 1);
  write("cert.pem", server.cert, 0o644);
  for (let i = 0; i < 5; i++) door.look();
  assert.equal(door.own.trim(), fresh.cert.trim());
  assert.equal(changes, 1);
  assert.deepEqual(
    logged.filter(([level]) => level === "error").map(([, message]) => message),
    ["TLS keeps what it had: the new files cannot be used"],
  );
  rmSync(files().key);
  door.renew();
  assert.equal(door.own.trim(), fresh.cert.trim());
  write("key.pem", server.key);
  door.renew();
  assert.equal(door.own.trim(), server.cert.trim());
  assert.equal(changes, 2);
  stop();
  door.renew();
  assert.equal(changes, 2);
});

async function opened(t: TestContext, ...flags: string[]) {
  const tls = await openTls(resolveSettings(flags, {}).settings, silentLog);
  t.after(() => tls.close());
  return tls;
}

test("the operations listener has the public one's files unless it has its own, and none on a Unix socket", async (t) => {
  const { path, write } = folder(t);
  const pair = ["--ssl-certfile", path("cert.pem"), "--ssl-keyfile", path("key.pem")];
  const none = await opened(t);
  assert.deepEqual([none.public, none.ops], [undefined, undefined]);
  assert.equal((await opened(t, ...pair)).ops?.own.trim(), server.cert.trim());
  assert.equal((await opened(t, ...pair, "--no-ops-ssl")).ops, undefined);
  assert.equal((await opened(t, ...pair, "--ops-uds", "/tmp/x")).ops, undefined);
  const other = await ca.issue();
  const own = ["--ops-ssl-certfile", write("o.pem", other.cert + other.key)];
  assert.equal((await opened(t, ...pair, ...own)).ops?.own.trim(), other.cert.trim());
  assert.equal((await opened(t, ...pair, ...own, "--ops-uds", "/tmp/x")).ops?.own.trim(), other.cert.trim());
  assert.equal((await opened(t, ...own)).public, undefined);
  const clients = ["--ssl-ca-certs", write("ca.pem", ca.cert), "--ssl-cert-reqs", "2"];
  assert.equal((await opened(t, ...pair, ...clients)).ops?.clients, "required");
  assert.equal((await opened(t, ...pair, ...clients, "--ops-ssl-cert-reqs", "0")).ops?.clients, "none");
});

test("settings that would do nothing are refused where somebody relies on them", async (t) => {
  const { path } = folder(t);
  const pair = ["--ssl-certfile", path("cert.pem"), "--ssl-keyfile", path("key.pem")];
  await assert.rejects(opened(t, "--ssl-keyfile", path("key.pem")), /need --ssl-certfile/);
  await assert.rejects(opened(t, "--ssl-cert-reqs", "2"), /need --ssl-certfile/);
  await assert.rejects(opened(t, ...pair, "--ssl-cert-reqs", "1"), /need --ssl-ca-certs/);
  await assert.rejects(opened(t, ...pair, "--ssl-ca-certs", path("cert.pem")), /need --ssl-cert-reqs/);
  await assert.rejects(opened(t, ...pair, "--client-certificates", path("x")), /need --ssl-cert-reqs/);
});

test("the metric says when each listener's certificate runs out", async (t) => {
  const { path } = folder(t);
  const registry = createRegistry();
  registerTlsMetrics(registry, await opened(t, "--ssl-certfile", path("cert.pem"), "--ssl-keyfile", path("key.pem")));
  const { body } = await printMetrics(registry);
  const seconds = Math.floor(server.certificate.notAfter.getTime() / 1000);
  assert.match(body, new RegExp(`castellan_tls_certificate_expiry{listener="public"} ${seconds}\\n`));
  assert.match(body, new RegExp(`castellan_tls_certificate_expiry{listener="ops"} ${seconds}\\n`));
});
