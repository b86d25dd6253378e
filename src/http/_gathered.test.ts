import assert from "node:assert/strict";
import { test } from "node:test";
import { Gathered } from "./_gathered.ts";

function piece(length: number, fill: number): Buffer {
  return Buffer.from(new Uint8Array(length).fill(fill).buffer);
}

test("pieces of any sizes come out as one, whatever length was announced", () => {
  for (const sizes of [[], [0, 5], [5], [65_536, 1], [1, 65_536, 65_536, 65_536, 100], Array(50).fill(20_000)])
    for (const announced of [0, 1, sizes.reduce((a, b) => a + b, 0), 10_000_000]) {
      const body = new Gathered(announced);
      for (const [i, size] of sizes.entries()) body.add(piece(size, i));
      const wanted = Buffer.concat(sizes.map((size, i) => piece(size, i)));
      assert.ok(body.bytes().equals(wanted), `${sizes.length} pieces, ${announced} announced`);
    }
});

test("a piece's memory is given back at once, but not that of a piece that lies in another's", () => {
  const body = new Gathered(200_000);
  const pieces = [piece(65_536, 1), piece(65_536, 2), piece(100_000, 3).subarray(0, 65_536)];
  for (const each of pieces) body.add(each);
  assert.deepEqual(
    pieces.map(({ length }) => length),
    [0, 0, 65_536],
  );
  assert.equal(body.bytes().length, 3 * 65_536);
});

test("what is only announced gets no room", () => {
  const body = new Gathered(1_000_000_000);
  for (const fill of [1, 2]) body.add(piece(1000, fill));
  assert.ok(body.bytes().buffer.byteLength <= 32_000);
  for (let i = 0; i < 100; i++) body.add(piece(1000, i));
  assert.ok(body.bytes().buffer.byteLength <= 102_000 * 16);
});
