import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Secret } from "#base/secret.ts";
import { authority } from "#test/fixtures/certificates.ts";
import { RenewedCredentials } from "./upstream-credentials.ts";
import { readCredentials } from "./upstream-models.ts";

async function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "castellan-credentials-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = (name: string): string => join(folder, name);
  const write = (name: string, text: string, mode = 0o600): void => {
    writeFileSync(path(name), text);
    chmodSync(path(name), mode);
  };
  const ca = await authority();
  const issue = async (): Promise<void> => {
    const { cert, key } = await ca.issue();
    write("cert", cert);
    write("cert-key", key);
  };
  write("key-file", "first-key");
  write("ca", ca.cert);
  await issue();
  const files = {
    ...{ "key-file": path("key-file"), ca: path("ca"), cert: path("cert"), "cert-key": path("cert-key") },
    where: "models.0",
  };
  const hidden: string[] = [];
  const told: string[] = [];
  const renewed = new RenewedCredentials({
    model: { credentials: readCredentials(files), files },
    label: "m",
    hide: (secret: Secret) => hidden.push(secret.expose()),
    log: (level, message, fields = {}) => told.push(`${level} ${message}: ${Object.values(fields).join(" ")}`),
  });
  const looks = (): void => {
    renewed.look();
    renewed.look();
  };
  looks();
  return { path, write, issue, renewed, looks, hidden, told, current: () => renewed.current() };
}

test("a key that changes is another, hidden before it is used; the rest is the same object", async (t) => {
  const { write, renewed, looks, hidden, told, current } = await setUp(t);
  const before = current();
  looks();
  assert.equal(current(), before, "nothing has changed");
  write("key-file", "second-key\n");
  renewed.look();
  assert.equal(current(), before, "it may still be written");
  renewed.look();
  assert.equal(current().key?.expose(), "second-key");
  assert.equal(current().tls, before.tls);
  assert.deepEqual(hidden, ["second-key"]);
  assert.deepEqual(told, ["info upstreams have new credentials: m true false"]);
  write("key-file", "second-key");
  looks();
  assert.equal(told.length, 1, "another file, and the same in it");
});

test("what cannot be used changes nothing, is told once, and what follows is taken", async (t) => {
  const { path, write, issue, looks, told, current } = await setUp(t);
  const before = current();
  const good = (): void => {
    write("key-file", "first-key");
    write("ca", before.tls?.ca ?? "");
  };
  const bad: readonly (readonly [string, () => void, RegExp])[] = [
    ["two lines", () => write("key-file", "a b\nc"), /holds no key in one line/],
    ["open to others", () => write("key-file", "other-key", 0o644), /chmod 600/],
    ["gone", () => rmSync(path("key-file")), /cannot be read \(ENOENT\)/],
    ["no certificate", () => write("ca", "x"), /holds no certificate/],
    ["half a pair", () => write("cert-key", "x"), /is damaged/],
  ];
  for (const [what, change, message] of bad) {
    told.length = 0;
    good();
    change();
    looks();
    looks();
    assert.equal(current(), before, what);
    assert.equal(told.length, 1, what);
    assert.match(told[0] ?? "", /^error upstreams keep their credentials/);
    assert.match(told[0] ?? "", message, what);
  }
  good();
  await issue();
  looks();
  assert.notEqual(current().tls?.certificate, before.tls?.certificate);
  assert.equal(current().key?.expose(), "first-key");
});
