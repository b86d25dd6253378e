import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, linkSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AdapterFileError, adapterRoots, openAdapter, rootProblem } from "./adapter-file.ts";

const base = mkdtempSync(join(tmpdir(), "castellan-adapters-"));
const root = join(base, "root");
const file = (name: string, text = ""): string => {
  const path = join(base, name);
  mkdirSync(join(path, ".."), { recursive: true, mode: 0o700 });
  writeFileSync(path, text, { mode: 0o600 });
  return path;
};
for (const name of ["root/a.gguf", "root/sub/b.gguf", "outside.gguf", "root/open.gguf"]) file(name, name);
chmodSync(join(root, "open.gguf"), 0o666);
symlinkSync(join(base, "outside.gguf"), join(root, "link.gguf"));
symlinkSync(join(root, "a.gguf"), join(root, "inner.gguf"));
symlinkSync(root, join(base, "root-link"));
file("root-not/c.gguf");

/** What is in the file that is opened. */
async function opened(path: string, roots: readonly string[] | "anywhere" = [root]): Promise<string> {
  const files = await openAdapter(path, roots);
  const all = files.form === "gguf" ? [files.file] : [files.config, files.weights];
  const texts = await Promise.all(all.map((handle) => handle.readFile("utf8")));
  for (const handle of all) await handle.close();
  return texts.join(" ");
}
const refused = (path: string, says: RegExp, roots: readonly string[] | "anywhere" = [root]) =>
  assert.rejects(
    openAdapter(path, roots),
    (error) => error instanceof AdapterFileError && says.test(error.message),
    path,
  );
const OUTSIDE = /^it is not a file in a folder that adapters may be loaded from$/;

test("files under the folders are resolved, links among them too", async () => {
  assert.equal(await opened(join(root, "a.gguf")), "root/a.gguf");
  assert.equal(await opened(join(root, "sub", "..", "sub", "b.gguf"), ["/nowhere", root]), "root/sub/b.gguf");
  assert.equal(await opened(join(root, "inner.gguf")), "root/a.gguf");
  assert.equal(await opened(join(base, "root-link", "a.gguf"), [join(base, "root-link")]), "root/a.gguf");
});

test("anything else is refused, in the same words whether it is there or not", async () => {
  execFileSync("mkfifo", [join(root, "pipe.gguf")]);
  const outside = [
    join(base, "outside.gguf"),
    join(root, "../outside.gguf"),
    join(root, "link.gguf"),
    join(root, "missing.gguf"),
    join(root, "pipe.gguf"),
    join(base, "root-not", "c.gguf"),
    root,
    "a.gguf",
    "",
    `${root}/a.gguf\0.txt`,
    `/${"x/".repeat(3000)}`,
    "/dev/zero",
    "/etc/passwd",
  ];
  for (const path of outside) await refused(path, OUTSIDE);
  await refused(join(root, "a.gguf"), OUTSIDE, []);
});

test("a file or folder that others can write is refused, and a file with a second name", async () => {
  await refused(join(root, "open.gguf"), /the file can be changed by other users/);
  file("root/shared/d.gguf");
  chmodSync(join(root, "shared"), 0o777);
  await refused(join(root, "shared/d.gguf"), /the folder can be changed by other users/);
  linkSync(join(base, "outside.gguf"), join(root, "second.gguf"));
  await refused(join(root, "second.gguf"), /second name/);
});

test("what is named at the start may lie anywhere, but is a file", async () => {
  assert.equal(await opened(file("own.gguf", "own"), "anywhere"), "own");
  await refused(join(base, "none"), /^there is no such file$/, "anywhere");
  await refused(join(root, "pipe.gguf"), /not a file/, "anywhere");
});

test("pickles are refused by their names and by how they begin", async () => {
  for (const name of ["a.bin", "a.pt", "a.pth", "a.PKL", "a.ckpt", "a.zip"])
    await refused(file(`root/p/${name}`, "GGUF"), /pickles, and archives of them, are never read/);
  await refused(file("root/p/zip.gguf", "PK\x03\x04"), /pickles/);
  const pickle = file("root/p/pickle.gguf");
  writeFileSync(pickle, Buffer.from([0x80, 0x02, 0x7d, 0x71]));
  await refused(pickle, /pickles/);
  await refused(file("root/p/a.safetensors"), /name the folder/);
});

test("a folder in PEFT form is its two files, and no link of them leads out", async () => {
  const config = file("root/peft/adapter_config.json", "config");
  await refused(join(config, ".."), /^the folder has no adapter_model.safetensors$/);
  file("root/peft/adapter_model.bin");
  await refused(join(config, ".."), /no adapter_model.safetensors; adapter_model.bin is a pickle/);
  file("root/peft/adapter_model.safetensors", "weights");
  assert.equal(await opened(join(config, "..")), "config weights");
  assert.equal(await opened(join(config, ".."), "anywhere"), "config weights");
  await refused(join(root, "sub"), /^the folder has no adapter_config.json$/);
  file("root/linked/adapter_config.json");
  symlinkSync(join(base, "outside.gguf"), join(root, "linked/adapter_model.safetensors"));
  await refused(join(root, "linked"), OUTSIDE);
});

test("by tenant: one tenant's folder is not another's, and the operator's is above all", async () => {
  const roots = ["/a/{tenant}", "/b/{tenant}/lora", "/c"];
  assert.deepEqual(adapterRoots(roots, "acme"), ["/a/acme", "/b/acme/lora", "/c"]);
  assert.deepEqual(adapterRoots(roots, undefined), ["/a/", "/b/", "/c"]);
  assert.deepEqual(adapterRoots(["/a/{tenant}"], "$&"), ["/a/$&"]);
  const theirs = file("by/other/x.gguf", "theirs");
  const own = file("by/acme/x.gguf", "own");
  const of = (tenant?: string) => adapterRoots([join(base, "by/{tenant}")], tenant);
  assert.equal(await opened(own, of("acme")), "own");
  symlinkSync(theirs, join(base, "by/acme/link.gguf"));
  for (const path of [theirs, join(base, "by/other/none.gguf"), join(base, "by/acme/link.gguf")])
    await refused(path, OUTSIDE, of("acme"));
  assert.equal(await opened(theirs, of()), "theirs");
});

test("the tenant is a whole part of the path, once", () => {
  for (const right of ["/a", "/a/{tenant}", "/a/{tenant}/b"]) assert.equal(rootProblem(right), undefined, right);
  for (const wrong of ["{tenant}", "/a/x{tenant}", "/a/{tenant}x", "/{tenant}/{tenant}", "/a/{name}", "/a/{"])
    assert.match(rootProblem(wrong) ?? "", /takes \{tenant\} once/, wrong);
});
