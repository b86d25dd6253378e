/**
 * Advisories about media, against a gateway: what would be decoded behind it is judged by its bytes first, whether it is
 * fetched or stands in its URL. The server behind keeps what it was asked.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { dataUrl } from "#egress/media/data-url.ts";
import { mediaDigest } from "#egress/media/digest.ts";
import { type FakeVllm, fakeVllm, json } from "../fixtures/fake-vllm.ts";
import { gif, jpeg, png, WAV } from "../fixtures/images.ts";
import { startServer, type TestServer } from "../harness.ts";

let behind: FakeVllm;
let gateway: TestServer;

before(async () => {
  behind = await fakeVllm("m");
  behind.answers.set("/v1/chat/completions", (_, response) => json(response, {}));
  gateway = await startServer({ args: ["--upstream", behind.url, "--served-model-name", "m"] });
});
beforeEach(() => {
  behind.asked.length = 0;
});
after(async () => {
  await gateway.stop();
  await behind.close();
});

async function ask(...content: readonly object[]): Promise<{ readonly status: number; readonly text: string }> {
  const body = JSON.stringify({ model: "m", max_tokens: 1, messages: [{ role: "user", content }] });
  const answer = await gateway.fetch("/v1/chat/completions", { method: "POST", body });
  return { status: answer.status, text: await answer.text() };
}

const image = (url: string) => ({ type: "image_url", image_url: { url } });
const video = (url: string) => ({ type: "video_url", video_url: { url } });
const audio = (url: string) => ({ type: "audio_url", audio_url: { url } });

async function refused(part: object, says: RegExp): Promise<void> {
  const { status, text } = await ask(part);
  assert.equal(status, 400, text);
  assert.match(text, says);
  assert.match(text, /"param":"messages\.0\.content\.0\./);
  assert.equal(behind.asked.length, 0);
}

test("images of one pixel pass; those of extreme sides, sizes or frames reach no decoder", async () => {
  const { status, text } = await ask(image(dataUrl("image/png", png(1, 1))));
  assert.equal(status, 200, text);
  assert.equal(behind.asked.length, 1);
  behind.asked.length = 0;
  await refused(image(dataUrl("image/png", png(2010, 10, { rows: 1 }))), /200 to 1/);
  await refused(image(dataUrl("image/png", png(50_000, 50_000, { rows: 1 }))), /pixels/);
  await refused(image(dataUrl("image/jpeg", jpeg(65_500, 65_500))), /pixels/);
  await refused(image(dataUrl("image/gif", gif(1, 1, 100_000))), /frames/);
});

test("a video as a list of JPEG frames is no video", async () => {
  const frame = jpeg(2, 2).toString("base64");
  const frames = Array.from({ length: 5000 }, () => frame).join(",");
  await refused(video(`data:video/jpeg;base64,${frames}`), /base64/);
  await refused(video(`data:video/jpeg;base64,${frame}`), /video/);
});

test("formats that are not on the list reach no decoder", async () => {
  const jp2 = Buffer.from("0000000c6a5020200d0a870a", "hex");
  await refused(image(dataUrl("image/jp2", jp2)), /image/);
  await refused(image(dataUrl("image/png", jp2)), /image/);
  await refused(image(dataUrl("image/png", Buffer.concat([png(2, 2), jp2]))), /image/);
  await refused(audio(dataUrl("audio/wav", png(2, 2))), /audio/);
});

test("media of one request are counted before any is looked at", async () => {
  const { status, text } = await ask(...Array.from({ length: 17 }, () => audio(dataUrl("audio/wav", WAV))));
  assert.equal(status, 400);
  assert.match(text, /More than 16 media/);
  assert.equal(behind.asked.length, 0);
});

test("images of equal pixels and other sides are told apart", async () => {
  const [wide, high] = [png(100, 30), png(30, 100)];
  for (const algorithm of ["sha256", "sha512", "blake3"] as const) {
    const digest = await mediaDigest(algorithm, false);
    assert.notEqual(digest.of(wide), digest.of(high));
  }
});
