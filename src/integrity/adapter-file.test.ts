import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AdapterFileError, adapterFile } from "./adapter-file.ts";

const base = mkdtempSync(join(tmpdir(), "castellan-adapters-"));
const root = join(base, "root");
mkdirSync(join(root, "sub"), { recursive: true });
for (const name of ["root/a.gguf", "root/sub/b.gguf", "outside.gguf", "root/open.gguf"])
  writeFileSync(join(base, name), "", { mode: 0o600 });
chmodSync(join(root, "open.gguf"), 0o666);
symlinkSync(join(base, "outside.gguf"), join(root, "link.gguf"));
symlinkSync(join(root, "a.gguf"), join(root, "inner.gguf"));
symlinkSync(root, join(base, "root-link"));
mkdirSync(join(base, "root-not"));
writeFileSync(join(base, "root-not", "c.gguf"), "", { mode: 0o600 });

const refused = (path: string, roots = [root]) => assert.throws(() => adapterFile(path, roots), AdapterFileError, path);

test("files under the folders are resolved, links among them too", () => {
  assert.equal(adapterFile(join(root, "a.gguf"), [root]), join(root, "a.gguf"));
  assert.equal(adapterFile(join(root, "sub", "..", "sub", "b.gguf"), ["/nowhere", root]), join(root, "sub/b.gguf"));
  assert.equal(adapterFile(join(root, "inner.gguf"), [root]), join(root, "a.gguf"));
  assert.equal(adapterFile(join(base, "root-link", "a.gguf"), [join(base, "root-link")]), join(root, "a.gguf"));
});

test("anything else is refused, in the same words whether it is there or not", () => {
  const outside = [
    join(base, "outside.gguf"),
    join(root, "../outside.gguf"),
    join(root, "link.gguf"),
    join(root, "missing.gguf"),
    join(base, "root-not", "c.gguf"),
    root,
    join(root, "sub"),
    "a.gguf",
    "",
    `${root}/a.gguf\0.txt`,
    `/${"x/".repeat(3000)}`,
    "/dev/zero",
    "/etc/passwd",
  ];
  for (const path of outside) refused(path);
  for (const path of outside) {
    try {
      adapterFile(path, [root]);
    } catch (error) {
      assert.equal((error as Error).message, "it is not a file in a folder that adapters may be loaded from");
    }
  }
  refused(join(root, "a.gguf"), []);
});

test("a file that others can write is refused", () => {
  assert.throws(() => adapterFile(join(root, "open.gguf"), [root]), /changed by other users/);
});
