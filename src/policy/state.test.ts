import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { openStateDirectory, StateError, statePepper } from "./state.ts";

function scratch(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-state-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const mode = (path: string): number => statSync(path).mode & 0o777;
const refused = (run: () => unknown, message: RegExp): void =>
  assert.throws(run, (error) => error instanceof StateError && message.test(error.message));

test("a missing directory is made for us alone, parents too", (t) => {
  const path = join(scratch(t), "a", "b");
  openStateDirectory(path);
  assert.equal(mode(path), 0o700);
  assert.equal(mode(join(path, "..")), 0o700);
});

test("a directory that others can write, a symlink or a file is refused", (t) => {
  const root = scratch(t);
  for (const bits of [0o770, 0o707, 0o777]) {
    const path = join(root, bits.toString(8));
    mkdirSync(path);
    chmodSync(path, bits);
    refused(() => openStateDirectory(path), /writable by others/);
  }
  mkdirSync(join(root, "real"), { mode: 0o700 });
  symlinkSync(join(root, "real"), join(root, "link"));
  refused(() => openStateDirectory(join(root, "link")), /not a directory/);
  writeFileSync(join(root, "file"), "");
  refused(() => openStateDirectory(join(root, "file")), /cannot be made|not a directory/);
});

test("files: private, atomic, and refused when others can read them", (t) => {
  const state = openStateDirectory(scratch(t));
  assert.equal(state.read("x.json"), undefined);
  state.write("x.json", Buffer.from("one"));
  state.write("x.json", Buffer.from("two"));
  assert.equal(state.read("x.json")?.toString(), "two");
  assert.equal(state.create("x.json", Buffer.from("three")), false);
  assert.equal(state.create("y.json", Buffer.from("four")), true);
  assert.deepEqual(readdirSync(state.path).sort(), ["x.json", "y.json"], "no temporary file is left");
  assert.equal(mode(join(state.path, "x.json")), 0o600);
  chmodSync(join(state.path, "x.json"), 0o640);
  refused(() => state.read("x.json"), /read or written by others/);
  for (const name of ["../x", "/etc/passwd", "", ".x", "a/b"]) refused(() => state.read(name), /not a name/);
});

test("a symlink, a directory and a FIFO in a file's place are refused and do not hang", (t) => {
  const state = openStateDirectory(scratch(t));
  writeFileSync(join(state.path, "real"), "x", { mode: 0o600 });
  symlinkSync(join(state.path, "real"), join(state.path, "link"));
  mkdirSync(join(state.path, "folder"), { mode: 0o700 });
  execFileSync("mkfifo", ["-m", "600", join(state.path, "fifo")]);
  refused(() => state.read("link"), /cannot be opened: ELOOP/);
  refused(() => state.read("folder"), /not a plain file/);
  refused(() => state.read("fifo"), /not a plain file/);
});

test("the pepper is made once; a damaged one is refused", (t) => {
  const state = openStateDirectory(scratch(t));
  const pepper = statePepper(state);
  assert.equal(pepper.length, 32);
  assert.deepEqual(statePepper(state), pepper);
  writeFileSync(join(state.path, "pepper"), "short");
  refused(() => statePepper(state), /damaged/);
});

test("a file takes another's name, and a missing one says so", (t) => {
  const state = openStateDirectory(scratch(t));
  state.create("a.json", Buffer.from("one"));
  state.create("b.json", Buffer.from("two"));
  state.move("a.json", "b.json");
  assert.equal(state.read("b.json")?.toString(), "one");
  refused(() => state.move("a.json", "c.json"), /cannot be renamed: ENOENT/);
});

test("a crash between the two steps of making a file leaves one that is read", (t) => {
  const state = openStateDirectory(scratch(t));
  state.create("x.json", Buffer.from("one"));
  linkSync(join(state.path, "x.json"), join(state.path, ".x.json.left-over"));
  assert.equal(state.read("x.json")?.toString(), "one");
});
