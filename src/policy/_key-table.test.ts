import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import { type KeyRow, KeyTable } from "./_key-table.ts";

const digestOf = (n: number): Buffer => createHash("sha256").update(String(n)).digest();
/** All land on one slot: the first four bytes are the same. */
const colliding = (n: number): Buffer => {
  const digest = digestOf(n);
  digest.fill(7, 0, 4);
  return digest;
};
const row = (n: number): KeyRow<number> => ({
  id: `key_${"x".repeat(n % 21)}`,
  profile: n,
  notBefore: n,
  expiresAt: n + 10,
  state: (["live", "disabled", "deleted"] as const)[n % 3] ?? "live",
  stored: n % 2 === 0,
});

function check(
  table: KeyTable<number>,
  at: number,
  { id, profile, notBefore, expiresAt, state }: KeyRow<number>,
): void {
  assert.equal(table.id(at), id);
  assert.equal(table.profile(at), profile);
  assert.equal(table.state(at), state);
  assert.equal(table.times(at, notBefore - 1), "early");
  assert.equal(table.times(at, notBefore), "now");
  assert.equal(table.times(at, expiresAt - 1), "now");
  assert.equal(table.times(at, expiresAt), "late");
}

test("it is the map that it stands for, whatever the order and however digests meet", () => {
  const operation = fc.record({ key: fc.nat(60), value: fc.nat(1000), room: fc.nat(100), meets: fc.boolean() });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
      const table = new KeyTable<number>();
      const model = new Map<string, KeyRow<number>>();
      for (const { key, value, room, meets } of operations) {
        const digest = meets ? colliding(key) : digestOf(key);
        if (room > 90) table.reserve(room);
        table.put(digest, row(value));
        model.set(digest.toString("hex"), row(value));
      }
      assert.equal(table.size, model.size);
      for (let key = 0; key <= 60; key++)
        for (const digest of [digestOf(key), colliding(key)]) {
          const expected = model.get(digest.toString("hex"));
          const at = table.find(digest);
          assert.equal(at >= 0, expected !== undefined);
          if (expected !== undefined) check(table, at, expected);
        }
    }),
  );
});

test("a digest that differs in one bit is not found", () => {
  const table = new KeyTable<number>();
  const digest = digestOf(1);
  table.put(digest, row(1));
  for (let bit = 0; bit < 256; bit++) {
    const other = Buffer.from(digest);
    other[bit >> 3] = (other[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(table.find(other), -1);
  }
});

test("an empty table finds nothing, and takes 32 bytes and ids of ours only", () => {
  const table = new KeyTable<number>();
  assert.equal(table.find(digestOf(1)), -1);
  assert.throws(() => table.put(new Uint8Array(31), row(1)), /32 bytes/);
  for (const id of ["", "key", "yek_1", `key_${"x".repeat(21)}`])
    assert.throws(() => new KeyTable<number>().put(digestOf(1), { ...row(1), id }), /not an id/);
});

test("the use of a stored key is noted once a minute", () => {
  const table = new KeyTable<number>();
  const stored = table.put(digestOf(1), { ...row(1), stored: true });
  const given = table.put(digestOf(2), { ...row(1), stored: false });
  const notes = [60_000, 60_001, 119_999, 120_000, 120_000].map((now) => table.noteUse(stored, now));
  assert.deepEqual(notes, [true, false, false, true, false]);
  assert.equal(table.noteUse(given, 60_000), false);
});

test("room made in advance is not made again", () => {
  const table = new KeyTable<number>();
  table.reserve(1000);
  const { bytes } = table;
  for (let n = 0; n < 1000; n++) table.put(digestOf(n), row(n));
  assert.equal(table.bytes, bytes + 8 * 1000);
});
