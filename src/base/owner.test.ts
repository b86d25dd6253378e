import assert from "node:assert/strict";
import { chmodSync, chownSync, mkdtempSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isForeign, isOpen, OTHERS_ANY, OTHERS_WRITE } from "./owner.ts";

const path = join(mkdtempSync(join(tmpdir(), "castellan-owner-")), "file");
writeFileSync(path, "");

test("what others may do stands in the mode", () => {
  for (const [mode, any, write] of [
    [0o600, false, false],
    [0o700, false, false],
    [0o604, true, false],
    [0o640, true, false],
    [0o620, true, true],
    [0o602, true, true],
    [0o610, true, false],
  ] as const) {
    chmodSync(path, mode);
    assert.deepEqual(
      [isOpen(statSync(path), OTHERS_ANY), isOpen(statSync(path), OTHERS_WRITE)],
      [any, write],
      `${mode}`,
    );
  }
});

test("another user's is another's, also root's", { skip: process.getuid === undefined }, (t) => {
  assert.equal(isForeign(statSync(path)), false);
  assert.equal(isForeign({ uid: (process.getuid?.() ?? 0) + 1 }), true);
  if (process.getuid?.() !== 0) return assert.equal(isForeign(statSync("/")), true);
  chownSync(path, 1, 1);
  t.after(() => chownSync(path, 0, 0));
  assert.equal(isForeign(statSync(path)), true);
});
