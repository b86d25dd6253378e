import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { WholeFrames } from "./_frames.ts";

const text = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString();

test("what ends with a frame passes as it is, the beginning of one waits", () => {
  const frames = new WholeFrames();
  const whole = Buffer.from("data: 1\n\n");
  assert.equal(frames.take(whole), whole);
  assert.equal(frames.take(Buffer.from("data: 2")), undefined);
  assert.equal(frames.take(Buffer.from("\n")), undefined);
  assert.equal(text(frames.take(Buffer.from("\ndata: 3\n\nda"))), "data: 2\n\ndata: 3\n\n");
  assert.ok(frames.between);
  assert.equal(text(frames.rest()), "da");
  assert.equal(frames.rest(), undefined);
});

test("a carriage return before each line feed makes no difference", () => {
  const frames = new WholeFrames();
  assert.equal(text(frames.take(Buffer.from("data: 1\r\n\r\n"))), "data: 1\r\n\r\n");
  assert.equal(frames.take(Buffer.from("data: 2\r\n")), undefined);
  assert.equal(text(frames.take(Buffer.from("\r\n"))), "data: 2\r\n\r\n");
});

test("a frame that is too long to be held passes in pieces, and nothing may come between until its end", () => {
  const frames = new WholeFrames();
  assert.equal(frames.take(Buffer.alloc(65_536, "x")), undefined);
  assert.equal(frames.take(Buffer.from("y"))?.length, 65_537);
  assert.ok(!frames.between);
  assert.equal(text(frames.take(Buffer.from("z"))), "z");
  assert.ok(!frames.between);
  assert.equal(text(frames.take(Buffer.from("\n\ndata"))), "\n\n");
  assert.ok(frames.between);
  assert.equal(text(frames.rest()), "data");
});

test("however it is cut, the same bytes come out, and always whole frames", () => {
  const frame = fc.constantFrom("data: a\n\n", "event: e\ndata: {}\n\n", ": c\r\n\r\n", "data: \n\n");
  const cut = fc.array(fc.nat({ max: 12 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 10 }), cut, (parts, sizes) => {
      const all = Buffer.from(parts.join(""));
      const frames = new WholeFrames();
      let out = "";
      for (let at = 0, i = 0; at < all.length; i++) {
        const size = 1 + (sizes[i % sizes.length] ?? 0);
        const piece = text(frames.take(all.subarray(at, at + size)));
        if (piece !== undefined) {
          out += piece;
          assert.ok(/(?:\n\n|\r\n\r\n)$/.test(piece) && all.toString().startsWith(out));
        }
        at += size;
      }
      assert.equal(out, all.toString());
      assert.equal(frames.rest(), undefined);
    }),
  );
});
