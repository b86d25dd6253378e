import assert from "node:assert/strict";
import { test } from "node:test";
import { gif, jpeg, MP3, MP4, png, WAV, WEBM, webp } from "#test/fixtures/images.ts";
import { mediaType } from "./formats.ts";

test("a type is what the bytes are, where nothing else is said", () => {
  for (const said of [undefined, "", "application/octet-stream", "Binary/Octet-Stream; x=1"]) {
    assert.equal(mediaType(png(1, 1), "image", said), "image/png");
    assert.equal(mediaType(gif(1, 1), "image", said), "image/gif");
    assert.equal(mediaType(jpeg(1, 1), "image", said), "image/jpeg");
    assert.equal(mediaType(webp(1, 1), "image", said), "image/webp");
    assert.equal(mediaType(MP3, "audio", said), "audio/mpeg");
    assert.equal(mediaType(Buffer.from("ID3\x04\0\0"), "audio", said), "audio/mpeg");
    assert.equal(mediaType(WAV, "audio", said), "audio/wav");
    assert.equal(mediaType(Buffer.from("fLaC"), "audio", said), "audio/flac");
    assert.equal(mediaType(Buffer.from("OggS"), "audio", said), "audio/ogg");
    assert.equal(mediaType(Buffer.from([0xff, 0xf1, 0x50, 0x80]), "audio", said), "audio/aac");
    assert.equal(mediaType(MP4, "video", said), "video/mp4");
    assert.equal(mediaType(MP4, "audio", said), "audio/mp4");
    assert.equal(mediaType(WEBM, "video", said), "video/webm");
  }
  assert.equal(mediaType(png(1, 1), "image", "IMAGE/PNG; charset=x"), "image/png");
  assert.equal(mediaType(jpeg(1, 1), "image", "image/jpg"), "image/jpeg");
  assert.equal(mediaType(WAV, "audio", "audio/x-wav"), "audio/wav");
});

test("what is said and is not so is refused, as is what is of another kind", () => {
  assert.equal(mediaType(png(1, 1), "image", "image/jpeg"), undefined);
  assert.equal(mediaType(png(1, 1), "image", "text/html"), undefined);
  assert.equal(mediaType(png(1, 1), "image", "image/svg+xml"), undefined);
  assert.equal(mediaType(png(1, 1), "audio", "image/png"), undefined);
  assert.equal(mediaType(WAV, "image", undefined), undefined);
  assert.equal(mediaType(WAV, "video", undefined), undefined);
  for (const text of ["<html>", "<svg xmlns='x'/>", "%PDF-1.7", "PK\x03\x04", "BM", "MZ", "#!/bin/sh", "", "\xff\xd8"])
    for (const kind of ["image", "audio", "video"] as const)
      assert.equal(mediaType(Buffer.from(text, "latin1"), kind, undefined), undefined, text);
  assert.equal(mediaType(Buffer.from("\0\0\0\x1cftypavif\0\0\0\0", "latin1"), "image", undefined), undefined);
});
