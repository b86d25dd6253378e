import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { hash } from "node:crypto";
import { linkSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { png, WAV } from "#test/fixtures/images.ts";
import { mediaRig } from "./_fixture.ts";
import { dataUrl } from "./data-url.ts";
import { mediaDigest } from "./digest.ts";
import type { MediaCaller, MediaOutcome } from "./fetcher.ts";
import { LocalMedia } from "./local.ts";
import { mediaFault } from "./refusal.ts";

const IMAGE = png(3, 5);
const caller = (tenant = "t", signal = new AbortController().signal): MediaCaller => ({
  tenant,
  requestId: "req-1",
  signal,
});
const image = (url: string) => ({ url, kind: "image" as const });
const kindOf = (outcome: MediaOutcome): string => ("refusal" in outcome ? outcome.refusal.kind : "media");
const serves = (t: TestContext) =>
  mediaRig(t, (_, response) => void response.setHeader("content-type", "image/png").end(IMAGE));

test("a URL becomes bytes with their type, size and digest, and one record", async (t) => {
  const rig = await serves(t);
  const fetcher = await rig.fetcher();
  const outcome = await fetcher.fetch(image(rig.url("/a.png?signature=abc")), caller());
  assert.ok("media" in outcome);
  assert.deepEqual(outcome.media, {
    kind: "image",
    bytes: IMAGE,
    type: "image/png",
    digest: { algorithm: "sha256", hex: hash("sha256", IMAGE) },
    image: { width: 3, height: 5, frames: 1 },
  });
  assert.deepEqual(rig.seen, ["a.media.test /a.png?signature=abc"]);
  const [decision] = rig.decisions;
  assert.equal(rig.decisions.length, 1);
  assert.ok((decision?.milliseconds ?? 0) > 0);
  assert.deepEqual(
    { ...decision, milliseconds: 0 },
    {
      kind: "image",
      decision: "allowed",
      outcome: "ok",
      rule: undefined,
      reason: undefined,
      host: `a.media.test:${rig.port}`,
      addresses: ["127.0.0.1"],
      hops: 0,
      bytes: IMAGE.length,
      cached: false,
      milliseconds: 0,
      tenant: "t",
      requestId: "req-1",
    },
  );
});

test("without domains there are no media URLs; with them only theirs, at their ports, over TLS", async (t) => {
  const rig = await serves(t);
  const off = await rig.fetcher({ domains: [] });
  assert.equal(kindOf(await off.fetch(image(rig.url("/")), caller())), "off");
  const fetcher = await rig.fetcher({ domains: ["b.media.test"] });
  assert.equal(kindOf(await fetcher.fetch(image(rig.url("/", "b")), caller())), "media");
  for (const url of [
    rig.url("/"),
    rig.url("/", "x.b"),
    "https://b.media.test/",
    "https://b.media.test:444/",
    "ftp://b.media.test/",
    "blob:https://b.media.test/",
    "javascript:alert(1)",
    "",
    "x".repeat(10_000),
  ])
    assert.equal(kindOf(await fetcher.fetch(image(url), caller())), "bad_url", url);
  const below = await rig.fetcher({ domains: [".media.test"] });
  assert.equal(kindOf(await below.fetch(image(`https://media.test:${rig.port}/`), caller())), "bad_url");
  assert.equal(kindOf(await below.fetch(image(`https://amedia.test:${rig.port}/`), caller())), "bad_url");
  const outside = await rig.fetcher({ guard: { resolve: async () => ["10.0.0.1"] }, domains: ["b.media.test"] });
  assert.equal(kindOf(await outside.fetch(image(`http://b.media.test:${rig.port}/`), caller())), "bad_url");
  assert.deepEqual(rig.seen, ["b.media.test /"]);
  assert.ok(rig.decisions.every(({ decision, rule }) => decision === "allowed" || rule === 1 || rule === 3));
});

test("redirects are followed where they are switched on, each judged, and counted", async (t) => {
  const rig = await mediaRig(t, (request, response) => {
    const left = Number(request.url?.slice(1));
    if (left === 0) response.setHeader("content-type", "image/png").end(IMAGE);
    else response.writeHead(302, { location: left % 2 === 0 ? `/${left - 1}` : rig.url(`/${left - 1}`, "b") }).end();
  });
  const off = await rig.fetcher();
  assert.equal(kindOf(await off.fetch(image(rig.url("/1")), caller())), "unusable");
  assert.deepEqual([rig.decisions[0]?.rule, rig.decisions[0]?.outcome], [7, "redirects"]);
  const on = await rig.fetcher({ redirects: 3 });
  assert.equal(kindOf(await on.fetch(image(rig.url("/3")), caller())), "media");
  assert.deepEqual([rig.decisions[1]?.hops, rig.decisions[1]?.host], [3, `b.media.test:${rig.port}`]);
  assert.equal(kindOf(await on.fetch(image(rig.url("/4")), caller())), "unusable");
  const narrow = await rig.fetcher({ redirects: 3, domains: ["a.media.test"] });
  assert.equal(kindOf(await narrow.fetch(image(rig.url("/1")), caller())), "unusable");
  assert.deepEqual([rig.decisions[3]?.rule, rig.decisions[3]?.decision], [3, "refused"]);
  rig.answer = (_, response) =>
    void response.writeHead(302, { location: rig.url("/0").replace("https", "http") }).end();
  const plain = await rig.fetcher({ redirects: 3, plainHttp: true });
  assert.equal(kindOf(await plain.fetch(image(rig.url("/1")), caller())), "unusable");
  assert.equal(rig.decisions[4]?.rule, 7);
});

test("what comes is held against what it should be; the client is told one sentence", async (t) => {
  const rig = await serves(t);
  const fetcher = await rig.fetcher();
  const messages = new Set<string>();
  for (const [type, body, status] of [
    ["text/html", IMAGE, 200],
    ["image/jpeg", IMAGE, 200],
    ["image/png", WAV, 200],
    ["image/png", png(2000, 2000, { rows: 1 }), 200],
    ["image/png", Buffer.alloc(0), 200],
    ["image/png", IMAGE, 404],
    ["image/png", IMAGE, 500],
    ["image/png", IMAGE, 206],
    ["image/png", Buffer.alloc(100_001), 200],
  ] as const) {
    rig.answer = (_, response) => void response.writeHead(status, { "content-type": type }).end(body);
    const outcome = await fetcher.fetch(image(rig.url("/")), caller());
    assert.ok("refusal" in outcome);
    messages.add(outcome.refusal.message);
  }
  assert.deepEqual([...messages], ["The media could not be fetched from their URL, or are not what was asked for."]);
  assert.deepEqual(
    rig.decisions.map(({ outcome }) => outcome),
    [...Array<string>(8).fill("content"), "too_large"],
  );
});

test("the wait for a turn is part of the deadline, and ends with the caller", async (t) => {
  const rig = await mediaRig(t, () => {});
  const options = {
    timeoutMs: { image: 300, audio: 300, video: 300 },
    turns: { atOnce: 1, atOncePerTenant: 1, waiting: 2, waitingPerTenant: 2 },
  };
  const fetcher = await rig.fetcher(options);
  const stop = new AbortController();
  const all = [
    fetcher.fetch(image(rig.url("/1")), caller("a")),
    fetcher.fetch(image(rig.url("/2")), caller("b", stop.signal)),
    fetcher.fetch(image(rig.url("/3")), caller("c")),
    fetcher.fetch(image(rig.url("/4")), caller("d")),
  ];
  stop.abort();
  assert.deepEqual((await Promise.all(all)).map(kindOf), ["unusable", "cancelled", "unusable", "busy"]);
  assert.deepEqual(rig.decisions.map(({ outcome }) => outcome).sort(), ["aborted", "busy", "timeout", "timeout"]);
  rig.answer = (_, response) => void response.end(IMAGE);
  assert.equal(kindOf(await fetcher.fetch(image(rig.url("/5")), caller("e"))), "media");
});

test("a caller who goes away ends the fetch", async (t) => {
  const stop = new AbortController();
  const rig = await mediaRig(t, () => stop.abort());
  assert.equal(kindOf(await (await rig.fetcher()).fetch(image(rig.url("/")), caller("a", stop.signal))), "cancelled");
  assert.equal(rig.decisions[0]?.outcome, "aborted");
  assert.equal(
    kindOf(await (await rig.fetcher()).fetch(image(rig.url("/")), caller("a", AbortSignal.abort()))),
    "cancelled",
  );
});

test("two tenants who ask for the same at the same time ask twice", async (t) => {
  const rig = await serves(t);
  const fetcher = await rig.fetcher();
  await Promise.all(["a", "b"].map((tenant) => fetcher.fetch(image(rig.url("/same")), caller(tenant))));
  assert.equal(rig.seen.length, 2);
});

test("the media of one request are counted before any is fetched, and weighed as they come", async (t) => {
  const rig = await serves(t);
  const fetcher = await rig.fetcher();
  const many = Array.from({ length: 5 }, (_, index) => image(rig.url(`/${index}`)));
  const refused = await fetcher.fetchAll(many, caller());
  assert.deepEqual(refused, { refusal: { kind: "too_many", message: "More than 4 media in one request." }, index: 4 });
  assert.deepEqual(rig.seen, []);
  const all = await fetcher.fetchAll(many.slice(0, 4), caller());
  assert.ok("all" in all);
  assert.equal(all.all.length, 4);
  const small = await rig.fetcher({ perRequest: { items: 4, bytes: IMAGE.length * 2 } });
  const heavy = await small.fetchAll(many.slice(0, 4), caller());
  assert.ok("refusal" in heavy && heavy.refusal.kind === "too_many");
  const one = await fetcher.fetchAll([image(rig.url("/")), image("nonsense")], caller());
  assert.ok("refusal" in one);
  assert.deepEqual([one.refusal.kind, one.index], ["bad_url", 1]);
});

test("data: URLs are judged like what is fetched, and told about", async (t) => {
  const fetcher = await (await serves(t)).fetcher({ domains: [] });
  const outcome = await fetcher.fetch(image(dataUrl("image/png", IMAGE)), caller());
  assert.ok("media" in outcome);
  assert.equal(outcome.media.digest.hex, hash("sha256", IMAGE));
  for (const [url, text] of [
    [dataUrl("image/gif", IMAGE), /not what it is said to be/],
    [dataUrl("text/html", Buffer.from("<html>")), /no image/],
    [dataUrl("image/png", png(2000, 2000, { rows: 1 })), /more than 1000000 pixels/],
    ["data:image/png;base64,A", /canonical/],
  ] as const) {
    const refused = await fetcher.fetch(image(url), caller());
    assert.ok("refusal" in refused);
    assert.match(refused.refusal.message, text);
  }
});

test("file: URLs lead to plain files beneath the folder, by descriptors", async (t) => {
  const rig = await serves(t);
  const off = await rig.fetcher();
  assert.equal(kindOf(await off.fetch(image("file:///etc/passwd"), caller())), "off");
  const base = mkdtempSync(join(tmpdir(), "castellan-media-"));
  t.after(() => rmSync(base, { recursive: true, force: true }));
  const root = join(base, "root");
  mkdirSync(join(root, "a b"), { recursive: true });
  mkdirSync(join(base, "root-other"));
  for (const path of ["root/a b/ok.png", "outside.png", "root-other/x.png"]) writeFileSync(join(base, path), IMAGE);
  writeFileSync(join(root, "large.png"), Buffer.alloc(100_001));
  symlinkSync(join(root, "a b/ok.png"), join(root, "link.png"));
  symlinkSync(base, join(root, "up"));
  linkSync(join(base, "outside.png"), join(root, "hard.png"));
  spawnSync("mkfifo", [join(root, "pipe.png")]);
  const local = await LocalMedia.open(root);
  const fetcher = await rig.fetcher({ local });
  t.after(() => fetcher.close());
  assert.equal(kindOf(await fetcher.fetch(image(`file://${root}/a%20b/ok.png`), caller())), "media");
  const messages = new Set<string>();
  for (const url of [
    `file://${base}/outside.png`,
    `file://${root}/../outside.png`,
    `file://${root}/%2e%2e/outside.png`,
    `file://${root}/..%2foutside.png`,
    `file://${base}/root-other/x.png`,
    `file://${root}//a%20b/ok.png`,
    `file://${root}/a%20b/./ok.png`,
    `file://${root}/a%20b/ok.png%00.gif`,
    `file://${root}/link.png`,
    `file://${root}/up/outside.png`,
    `file://${root}/hard.png`,
    `file://${root}/pipe.png`,
    `file://${root}/large.png`,
    `file://${root}/a%20b`,
    `file://${root}/none.png`,
    `file://${root}`,
    `file://localhost${root}/a%20b/ok.png`,
    `file:${root}/a%20b/ok.png`,
    "file:///etc/passwd",
    "file:///proc/self/environ",
    "file:///%ff",
  ]) {
    const outcome = await fetcher.fetch(image(url), caller());
    assert.ok("refusal" in outcome, url);
    messages.add(`${outcome.refusal.kind}: ${outcome.refusal.message}`);
  }
  assert.deepEqual(
    [...messages],
    ["unusable: The media could not be fetched from their URL, or are not what was asked for."],
  );
  assert.equal(rig.decisions.length, 22);
  assert.ok(rig.decisions.every(({ host, addresses }) => host === "file:" && addresses.length === 0));
  // The folder is the one that was opened, wherever its path leads now.
  renameSync(root, join(base, "moved"));
  symlinkSync("/etc", root);
  assert.equal(kindOf(await fetcher.fetch(image(`file://${root}/a%20b/ok.png`), caller())), "media");
  assert.equal(kindOf(await fetcher.fetch(image(`file://${root}/passwd`), caller())), "unusable");
});

test("refusals as faults; other digests", async (t) => {
  assert.deepEqual(
    (["off", "busy", "cancelled"] as const).map(
      (kind) => mediaFault({ kind, message: "m" }, "messages.0.content").kind,
    ),
    ["invalid_request", "overloaded", "cancelled"],
  );
  const rig = await serves(t);
  for (const [algorithm, length] of [
    ["sha512", 128],
    ["blake3", 64],
  ] as const) {
    const fetcher = await rig.fetcher({ digest: await mediaDigest(algorithm, false) });
    const outcome = await fetcher.fetch(image(dataUrl("image/png", IMAGE)), caller());
    assert.ok("media" in outcome);
    assert.deepEqual([outcome.media.digest.algorithm, outcome.media.digest.hex.length], [algorithm, length]);
  }
  // The test vector of the empty input.
  assert.equal(
    (await mediaDigest("blake3", false)).of(Buffer.alloc(0)),
    "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
  );
  await assert.rejects(mediaDigest("blake3", true), /not an approved/);
  assert.equal((await mediaDigest("sha512", true)).algorithm, "sha512");
});
