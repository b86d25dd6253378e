import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { KeySet } from "./keys.ts";
import { ensureKey } from "./mint.ts";
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

test("the first start mints a key that works, later starts find it and print nothing", (t) => {
  const path = scratch(t);
  const first = ensureKey(openStateDirectory(path));
  assert.ok(first.kind === "minted");
  const second = ensureKey(openStateDirectory(path));
  assert.equal(second.kind, "exists");
  assert.ok(!("key" in second));
  assert.equal(new KeySet(second.pepper, second.keys).find(first.key.expose())?.id, "key_1");
  assert.equal(mode(join(path, "keys.json")), 0o600);
  const kept = readdirSync(path).map((name) => readFileSync(join(path, name), "latin1"));
  assert.ok(
    kept.every((content) => !content.includes(first.key.expose().slice(4, 30))),
    "no file holds the key",
  );
});

test("a damaged key file, or a lost pepper, stops the start and leaves the files alone", (t) => {
  const path = scratch(t);
  ensureKey(openStateDirectory(path));
  const file = join(path, "keys.json");
  const good = readFileSync(file, "utf8");
  const bad = [
    "",
    "{",
    "null",
    good.slice(0, -5),
    '{"version":1,"keys":[]}',
    good.replace('"version":1', '"version":2'),
    good.replace("key_1", "root"),
  ];
  for (const content of bad) {
    writeFileSync(file, content);
    refused(() => ensureKey(openStateDirectory(path)), /keys\.json is damaged/);
    assert.equal(readFileSync(file, "utf8"), content);
  }
  writeFileSync(file, good);
  rmSync(join(path, "pepper"));
  refused(() => ensureKey(openStateDirectory(path)), /pepper is missing/);
  assert.ok(!existsSync(join(path, "pepper")));
});

test("of two servers that start at once one mints", (t) => {
  const path = scratch(t);
  const state = openStateDirectory(path);
  const winner = ensureKey(openStateDirectory(path));
  // The loser has looked and found nothing, then comes to write.
  let looks = 0;
  const loser = ensureKey({
    ...state,
    read: (name) => (name === "keys.json" && looks++ === 0 ? undefined : state.read(name)),
  });
  assert.equal(winner.kind, "minted");
  assert.equal(loser.kind, "exists");
  assert.deepEqual(loser.keys, winner.keys);
});

test("a crash between the two steps of making a file leaves one that is read", (t) => {
  const state = openStateDirectory(scratch(t));
  state.create("x.json", Buffer.from("one"));
  linkSync(join(state.path, "x.json"), join(state.path, ".x.json.left-over"));
  assert.equal(state.read("x.json")?.toString(), "one");
});
