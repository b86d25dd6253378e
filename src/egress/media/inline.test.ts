import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { png, WAV } from "#test/fixtures/images.ts";
import { mediaRig } from "./_fixture.ts";
import { dataUrl } from "./data-url.ts";
import { inlineMedia, type MediaPlace } from "./inline.ts";

const caller = { tenant: "t", signal: new AbortController().signal };

test("each URL becomes its bytes, in order, or the request has a fault that names the field", async (t) => {
  const rig = await mediaRig(t, (request, response) => void response.end(request.url === "/a.wav" ? WAV : png(2, 2)));
  const fetcher = await rig.fetcher();
  const places: readonly MediaPlace[] = [
    { url: rig.url("/a.wav"), kind: "audio", param: "messages.0.content.0.audio_url.url" },
    { url: rig.url("/b.png"), kind: "image", param: "messages.0.content.1.image_url.url" },
    { url: dataUrl("", png(3, 3)), kind: "image", param: "messages.0.content.2.image_url.url" },
  ];
  const inline = await inlineMedia(fetcher, places, caller);
  assert.deepEqual(
    inline.map(({ url }) => url),
    [dataUrl("audio/wav", WAV), dataUrl("image/png", png(2, 2)), dataUrl("image/png", png(3, 3))],
  );
  const fault = (kind: string, param: string | undefined) => (error: unknown) => {
    assert.ok(error instanceof Fault);
    assert.deepEqual([error.kind, error.param, error.detail], [kind, param, undefined]);
    return true;
  };
  const elsewhere = places.map((place, index) => (index === 1 ? { ...place, url: "https://other.test/" } : place));
  await assert.rejects(inlineMedia(fetcher, elsewhere, caller), fault("invalid_request", places[1]?.param));
  const gone = { ...caller, signal: AbortSignal.abort() };
  await assert.rejects(inlineMedia(fetcher, places.slice(0, 1), gone), fault("cancelled", undefined));
  const many = Array.from({ length: 5 }, () => places[0]).filter((place) => place !== undefined);
  await assert.rejects(inlineMedia(fetcher, many, caller), fault("invalid_request", places[0]?.param));
});
