import assert from "node:assert/strict";
import { hash } from "node:crypto";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { png } from "#test/fixtures/images.ts";
import { mediaRig } from "./_fixture.ts";
import { MediaCache, MediaCacheError } from "./cache.ts";

const KEY = Buffer.alloc(32, 7);
const IMAGE = png(3, 5);
const SIZES = { maxBytes: 10_000, maxAgeMs: 60_000 };
const place = (url: string, tenant = "t") => ({ tenant, kind: "image" as const, url });
const kept = { bytes: IMAGE, type: "image/png" };
const toKeep = (bytes = IMAGE) => ({
  bytes,
  type: "image/png",
  digest: { algorithm: "sha256" as const, hex: hash("sha256", bytes, "hex") },
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "castellan-media-cache-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

test("what is put comes back to its tenant, and is nothing to anybody who reads the disk", async (t) => {
  const directory = folder(t);
  const cache = await MediaCache.open({ directory, key: KEY, ...SIZES });
  await cache.put(place("https://a/x?sig=1"), toKeep());
  assert.deepEqual(await cache.get(place("https://a/x?sig=1")), kept);
  assert.equal(await cache.get(place("https://a/x?sig=1", "other")), undefined);
  assert.equal(await cache.get(place("https://a/x?sig=2")), undefined);
  assert.equal(await cache.get({ ...place("https://a/x?sig=1"), kind: "video" }), undefined);
  const names = readdirSync(join(directory, "kept"));
  assert.equal(names.length, 2, "a reference and its content");
  for (const name of names) {
    assert.match(name, /^[0-9a-f]{64}$/);
    const file = join(directory, "kept", name);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    for (const said of ["PNG", "image/png", toKeep().digest.hex]) assert.ok(!readFileSync(file).includes(said));
  }
  const next = await MediaCache.open({ directory, key: KEY, ...SIZES });
  assert.deepEqual(await next.get(place("https://a/x?sig=1")), kept);
  const stranger = await MediaCache.open({ directory, key: Buffer.alloc(32, 8), ...SIZES });
  assert.equal(await stranger.get(place("https://a/x?sig=1")), undefined);
});

test("the same bytes under several URLs are kept once for a tenant, and again for another", async (t) => {
  const directory = folder(t);
  const cache = await MediaCache.open({ directory, key: KEY, ...SIZES });
  const files = (): number => readdirSync(join(directory, "kept")).length;
  for (let index = 0; index < 5; index++) await cache.put(place(`https://a/x?sig=${index}`), toKeep());
  assert.equal(files(), 5 + 1);
  await cache.put(place("https://a/x?sig=0", "other"), toKeep());
  assert.equal(files(), 6 + 2);
  const { digest } = toKeep();
  await cache.put(place("other digest"), { ...toKeep(), digest: { ...digest, algorithm: "sha512" } });
  assert.equal(files(), 8 + 2, "another algorithm's digest is another");
  for (let index = 0; index < 5; index++) assert.deepEqual(await cache.get(place(`https://a/x?sig=${index}`)), kept);
  assert.deepEqual(await cache.get(place("https://a/x?sig=0", "other")), kept);
});

const SPOILT: Readonly<Record<string, (file: string, other: string) => void>> = {
  changed: (file) => {
    const bytes = readFileSync(file);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(file, bytes);
  },
  cut: (file) => writeFileSync(file, readFileSync(file).subarray(0, -1)),
  empty: (file) => writeFileSync(file, ""),
  moved: (file, other) => renameSync(other, file),
  linked: (file) => {
    renameSync(file, `${file}.aside`);
    symlinkSync(`${file}.aside`, file);
  },
  gone: (file) => rmSync(file),
};

for (const [how, spoil] of Object.entries(SPOILT))
  test(`a reference or a content that is ${how} is none, and what comes later is kept`, async (t) => {
    for (const which of [0, 1]) {
      const directory = folder(t);
      const open = () => MediaCache.open({ directory, key: KEY, ...SIZES });
      const cache = await open();
      await cache.put(place("a"), toKeep());
      const own = readdirSync(join(directory, "kept"));
      await cache.put(place("b"), toKeep(Buffer.concat([IMAGE, IMAGE])));
      const others = readdirSync(join(directory, "kept")).filter((name) => !own.includes(name));
      const file = join(directory, "kept", own[which] ?? "");
      // One of the other two is of its size, or of its kind.
      spoil(file, join(directory, "kept", others[which] ?? ""));
      assert.equal(await (await open()).get(place("a")), undefined);
      assert.equal(await cache.get(place("a")), undefined);
      await cache.put(place("a"), toKeep());
      assert.deepEqual(await cache.get(place("a")), kept);
    }
  });

test("it has an end in bytes and in time", async (t) => {
  const directory = folder(t);
  const cache = await MediaCache.open({ directory, key: KEY, maxBytes: 1000, maxAgeMs: 60_000 });
  for (let index = 0; index < 20; index++)
    await cache.put(place(`u${index}`), toKeep(Buffer.concat([IMAGE, Buffer.from([index])])));
  await cache.put(place("large"), toKeep(Buffer.alloc(2000)));
  const sizes = readdirSync(join(directory, "kept")).map((name) => statSync(join(directory, "kept", name)).size);
  assert.ok(sizes.length > 1 && sizes.reduce((a, b) => a + b) <= 1000);
  assert.equal(await cache.get(place("u0")), undefined);
  assert.deepEqual((await cache.get(place("u19")))?.bytes, Buffer.concat([IMAGE, Buffer.from([19])]));
  // Which are the oldest is told by times that a fast disk has in common, so not which of them stay.
  await MediaCache.open({ directory, key: KEY, maxBytes: 400, maxAgeMs: 60_000 });
  const left = readdirSync(join(directory, "kept")).map((name) => statSync(join(directory, "kept", name)).size);
  assert.ok(left.length > 0 && left.reduce((a, b) => a + b) <= 400);
  const past = await MediaCache.open({ directory, key: KEY, maxBytes: 1000, maxAgeMs: -1 });
  assert.equal(await past.get(place("u19")), undefined);
  assert.deepEqual(readdirSync(join(directory, "kept")), []);
});

test("what is put twice at the same time is counted once", async (t) => {
  const cache = await MediaCache.open({ directory: folder(t), key: KEY, maxBytes: 600, maxAgeMs: 60_000 });
  for (let round = 0; round < 20; round++) await Promise.all([1, 2, 3].map(() => cache.put(place("same"), toKeep())));
  await cache.put(place("other"), toKeep());
  assert.deepEqual(await cache.get(place("same")), kept);
  assert.deepEqual(await cache.get(place("other")), kept);
});

test("without a key all is of this start, and goes with it and with those that died", async (t) => {
  const directory = folder(t);
  const dead = await MediaCache.open({ directory, ...SIZES });
  await dead.put(place("a"), toKeep());
  const [own = ""] = readdirSync(directory);
  const foreign = own.replace(/^start-\d+/, "start-4194305");
  renameSync(join(directory, own), join(directory, foreign));
  const cache = await MediaCache.open({ directory, ...SIZES });
  await cache.put(place("a"), toKeep());
  assert.deepEqual(await cache.get(place("a")), kept);
  assert.deepEqual(readdirSync(directory).length, 1);
  await cache.close();
  assert.deepEqual(readdirSync(directory), []);
  await cache.put(place("b"), toKeep());
  assert.equal(await cache.get(place("b")), undefined);
});

test("a folder that others may enter, a link, a short key: no cache", async (t) => {
  const directory = folder(t);
  const refused = (error: unknown): boolean => error instanceof MediaCacheError;
  await assert.rejects(MediaCache.open({ directory, key: Buffer.alloc(31), ...SIZES }), refused);
  chmodSync(directory, 0o755);
  await assert.rejects(MediaCache.open({ directory, ...SIZES }), refused);
  chmodSync(directory, 0o700);
  symlinkSync(directory, `${directory}-link`);
  t.after(() => rmSync(`${directory}-link`));
  await assert.rejects(MediaCache.open({ directory: `${directory}-link`, ...SIZES }), refused);
});

test("a fetch that was kept leaves no trace at the server, is judged again, and is told in its record", async (t) => {
  const rig = await mediaRig(t, (_, response) => void response.setHeader("content-type", "image/png").end(IMAGE));
  const cache = await MediaCache.open({ directory: folder(t), ...SIZES });
  const fetcher = await rig.fetcher({ cache });
  const fetch = (tenant: string, of = fetcher) =>
    of.fetch({ url: rig.url("/x"), kind: "image" }, { tenant, signal: new AbortController().signal });
  const [first, second] = [await fetch("a"), await fetch("a")];
  assert.ok("media" in first && "media" in second);
  assert.deepEqual(second.media, first.media);
  await fetch("b");
  assert.equal(rig.seen.length, 2);
  assert.deepEqual(
    rig.decisions.map(({ cached, bytes }) => [cached, bytes]),
    [
      [false, IMAGE.length],
      [true, 0],
      [false, IMAGE.length],
    ],
  );
  const strict = await rig.fetcher({ cache, image: { pixels: 1, frames: 1, aspectRatio: 1 } });
  assert.ok("refusal" in (await fetch("a", strict)));
  const elsewhere = await rig.fetcher({ cache, domains: ["other.test"] });
  assert.ok("refusal" in (await fetch("a", elsewhere)));
  assert.equal(rig.seen.length, 2);
});
