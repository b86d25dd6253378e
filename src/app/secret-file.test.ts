/**
 * Files with secrets: which are taken, and what is said of the others.
 */
import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { databaseUrlOf, redisUrlOf } from "./given-urls.ts";
import { isOpenToOthers, readSecretFile } from "./secret-file.ts";

function file(t: TestContext, text: string, mode = 0o600): string {
  const folder = mkdtempSync(join(tmpdir(), "castellan-secret-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "secret");
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
}

test("a secret is its owner's alone; root's may be readable by a group, and by nobody else", () => {
  for (const mode of [0o600, 0o400]) {
    assert.equal(isOpenToOthers({ mode, uid: 1000 }), false);
    assert.equal(isOpenToOthers({ mode, uid: 0 }), false);
  }
  assert.equal(isOpenToOthers({ mode: 0o440, uid: 0 }), false, "as a volume with fsGroup has it");
  assert.equal(isOpenToOthers({ mode: 0o440, uid: 1000 }), true);
  for (const mode of [0o444, 0o660, 0o640 | 0o004, 0o602, 0o610])
    assert.equal(isOpenToOthers({ mode, uid: 0 }), true, mode.toString(8));
});

test("a file that others can read is refused by a sentence that names no content", (t) => {
  const path = file(t, "hunter2", 0o644);
  assert.throws(
    () => readSecretFile(path, "the key file"),
    /^StartupError: the key file can be read or written by others/,
  );
});

test("a URL with a password comes from a flag or from a file of one line, and not from both", (t) => {
  const url = "postgres://u:hunter2@db.example/castellan";
  const settings = { databaseUrl: undefined, databaseUrlFile: file(t, `${url}\n`) };
  assert.equal(databaseUrlOf(settings), url);
  assert.equal(databaseUrlOf({ databaseUrl: url, databaseUrlFile: undefined }), url);
  assert.equal(databaseUrlOf({ databaseUrl: undefined, databaseUrlFile: undefined }), undefined);
  assert.throws(() => databaseUrlOf({ ...settings, databaseUrl: url }), /give one of them/);
  for (const text of ["", "\n", `${url}\n${url}`]) {
    const bad = { redisUrl: undefined, redisUrlFile: file(t, text) };
    assert.throws(
      () => redisUrlOf(bad),
      (error) => error instanceof Error && !error.message.includes("hunter2"),
    );
  }
});
