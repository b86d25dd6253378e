import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { WeightFileError, weightFile } from "./weight-file.ts";

const base = mkdtempSync(join(tmpdir(), "castellan-weights-"));
const root = join(base, "root");
mkdirSync(join(root, "sub"), { recursive: true });
const file = (name: string, text = name): string => {
  writeFileSync(join(base, name), text, { mode: 0o600 });
  return join(base, name);
};
const digest = (text: string): string => createHash("sha256").update(text).digest("hex");
const { signal } = new AbortController();
const refused = (path: string, sha256: string, text: RegExp) =>
  assert.rejects(weightFile(path, [root], sha256, signal), (error) => {
    assert.ok(error instanceof WeightFileError);
    assert.match(error.message, text);
    assert.doesNotMatch(error.message, /castellan-weights/, "no path");
    return true;
  });

test("the file that was named by its digest, and no other", async () => {
  const path = file("root/sub/a.gguf", "new weights");
  const found = await weightFile(join(root, "sub/../sub/a.gguf"), [root], digest("new weights"), signal);
  assert.deepEqual([found.path, found.sha256, found.bytes], [path, digest("new weights"), 11]);
  await refused(path, digest("other weights"), /SHA-256/);
  await refused(path, "", /SHA-256/);
});

test("a file that is changed or replaced after it was judged is noticed", async () => {
  const path = file("root/b.gguf", "b");
  const judged = await weightFile(path, [root], digest("b"), signal);
  assert.equal(judged.unchanged(), true);
  appendFileSync(path, "c");
  assert.equal(judged.unchanged(), false);
  const second = await weightFile(path, [root], digest("bc"), signal);
  renameSync(file("root/c.gguf", "bc"), path);
  assert.equal(second.unchanged(), false);
  const third = await weightFile(path, [root], digest("bc"), signal);
  renameSync(path, join(root, "moved.gguf"));
  assert.equal(third.unchanged(), false);
});

test("files outside, files and folders that others can change: refused before they are read", async () => {
  const outside = file("outside.gguf", "x");
  symlinkSync(outside, join(root, "link.gguf"));
  for (const path of [outside, join(root, "link.gguf"), join(root, "none.gguf"), root, "/etc/passwd", "b.gguf"])
    await refused(path, digest("x"), /not a file in a folder that weights may be loaded from/);
  execFileSync("mkfifo", [join(root, "pipe.gguf")]);
  for (const path of [join(root, "pipe.gguf"), join(root, "sub")])
    await refused(path, digest("x"), /not a file in a folder that weights may be loaded from/);
  linkSync(outside, join(root, "second.gguf"));
  await refused(join(root, "second.gguf"), digest("x"), /second name/);
  const open = file("root/open.gguf", "x");
  chmodSync(open, 0o666);
  await refused(open, digest("x"), /the file can be changed by other users/);
  mkdirSync(join(root, "shared"));
  const inner = file("root/shared/d.gguf", "x");
  chmodSync(join(root, "shared"), 0o777);
  await refused(inner, digest("x"), /the folder can be changed by other users/);
});

test("reading ends when the caller goes away", async () => {
  const path = file("root/e.gguf", "e");
  await assert.rejects(weightFile(path, [root], digest("e"), AbortSignal.abort()), { name: "AbortError" });
});
