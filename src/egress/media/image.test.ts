import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { gif, jpeg, png, webp } from "#test/fixtures/images.ts";
import { mediaType } from "./formats.ts";
import { type ImageLimits, judgeImage } from "./image.ts";

const LIMITS: ImageLimits = { pixels: 40_000_000, frames: 256, aspectRatio: 200 };
const facts = (bytes: Buffer, limits: Partial<ImageLimits> = {}) =>
  judgeImage(bytes, mediaType(bytes, "image", undefined) ?? "none", { ...LIMITS, ...limits });
const problem = (bytes: Buffer, limits: Partial<ImageLimits> = {}): string => {
  const found = facts(bytes, limits);
  assert.ok("problem" in found, JSON.stringify(found));
  return found.problem;
};

test("sizes and frames come from the headers", () => {
  assert.deepEqual(facts(png(30, 100)), { width: 30, height: 100, frames: 1 });
  assert.deepEqual(facts(png(30, 100, { frames: 7 })), { width: 30, height: 100, frames: 7 });
  assert.deepEqual(facts(gif(300, 200, 3)), { width: 300, height: 200, frames: 3 });
  assert.deepEqual(facts(jpeg(640, 480)), { width: 640, height: 480, frames: 1 });
  assert.deepEqual(facts(jpeg(640, 480, { scans: 3 })), { width: 640, height: 480, frames: 1 });
  assert.deepEqual(facts(webp(320, 240)), { width: 320, height: 240, frames: 1 });
  assert.deepEqual(facts(webp(16_384, 100, { lossless: true })), { width: 16_384, height: 100, frames: 1 });
  assert.deepEqual(facts(webp(32, 24, { frames: 5 })), { width: 32, height: 24, frames: 5 });
  assert.deepEqual(facts(png(1, 1)), { width: 1, height: 1, frames: 1 });
});

test("what would be too large once decoded is refused by its header", () => {
  const bomb = png(50_000, 50_000, { rows: 1 });
  assert.ok(bomb.length < 1000);
  assert.match(problem(bomb), /more than 40000000 pixels/);
  assert.match(problem(png(16_000, 16_000, { rows: 1 })), /pixels/);
  assert.match(problem(jpeg(65_500, 65_500)), /pixels/);
  assert.match(problem(webp(16_383, 16_383)), /pixels/);
  assert.match(problem(gif(1, 1, 100_000)), /more than 256 frames/);
  assert.match(problem(png(10, 10, { frames: 0xffffffff })), /frames/);
  assert.match(problem(gif(1000, 1000, 41)), /pixels, all frames together/);
  assert.match(problem(png(2010, 10, { rows: 1 })), /200 to 1/);
  assert.match(problem(png(10, 2010)), /200 to 1/);
  assert.match(problem(jpeg(10, 10, { scans: 101 })), /100 scans/);
  assert.match(problem(png(0, 10, { rows: 1 })), /no pixels/);
  assert.match(problem(jpeg(10, 0)), /no pixels/);
  // A frame that stands out of the screen counts as large as it is.
  const wide = gif(10, 10);
  wide.writeUInt16LE(60_000, 19 + 5);
  wide.writeUInt16LE(60_000, 19 + 7);
  assert.match(problem(wide), /pixels/);
});

test("two files in one, and halves of one, are no image", () => {
  for (const whole of [png(3, 3), gif(3, 3), jpeg(3, 3), webp(3, 3), webp(4, 4, { frames: 2 })])
    for (let length = 12; length < whole.length; length++)
      assert.ok(
        mediaType(whole.subarray(0, length), "image", undefined) === undefined ||
          "problem" in facts(whole.subarray(0, length)),
        `${length} of ${whole.length}`,
      );
  const archive = Buffer.from("PK\x03\x04<script>alert(1)</script>", "latin1");
  for (const whole of [png(3, 3), gif(3, 3), webp(3, 3)])
    assert.match(problem(Buffer.concat([whole, archive])), /behind an image's end|as long as it says/);
  assert.match(problem(Buffer.from("GIF89a/*<svg onload=1>*/=1;alert(1)//;")), /GIF|early/);
  assert.match(problem(Buffer.from("\x89PNG\r\n\x1a\n<html>hello, this is a page</html>", "latin1")), /PNG|early/);
  const twice = Buffer.concat([png(3, 3).subarray(0, 33), png(9999, 9999, { rows: 1 }).subarray(8)]);
  assert.match(problem(twice), /two headers/);
});

test("any bytes are judged, and nothing throws or runs on", () => {
  const seeds = [png(3, 3, { frames: 2 }), gif(3, 3, 2), jpeg(3, 3), webp(3, 3), webp(4, 4, { frames: 2 })];
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { maxLength: 8 }),
      fc.uint8Array({ maxLength: 64 }),
      (seed, edits, tail) => {
        const bytes = Buffer.concat([seed, tail]);
        for (const [at, value] of edits) if (at < bytes.length) bytes[at] = value;
        const found = facts(bytes);
        assert.ok("problem" in found || found.width * found.height * found.frames <= LIMITS.pixels);
      },
    ),
    { numRuns: 2000 },
  );
});
