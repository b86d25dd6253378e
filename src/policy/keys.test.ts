/**
 * The set of keys: when one opens something, and what the log learns when it does not.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { DigestCache } from "./_digest-cache.ts";
import { type KeyEntry, KeySet, keyDigest } from "./keys.ts";
import { principalOf } from "./roles.ts";

const pepper = randomBytes(32);
const profile = principalOf({
  id: "",
  tenant: "acme",
  role: "operator",
  reach: { models: ["a*"] },
  limits: { tokensPerDay: 5 },
});
const entry = (id: string, more: Partial<KeyEntry> = {}): KeyEntry => ({
  id,
  digest: keyDigest(pepper, id),
  profile,
  ...more,
});

function scene() {
  let now = 1_000_000;
  const set = new KeySet(pepper, [], () => now);
  return {
    set,
    at: (time: number) => {
      now = time;
    },
    detail: (key: string): string | undefined => {
      try {
        set.find(key);
      } catch (error) {
        assert.ok(error instanceof Fault && error.kind === "unauthenticated" && error.message === "Unauthorized");
        return error.detail;
      }
      return undefined;
    },
  };
}

test("a key is its record's principal, the same object each time", () => {
  const { set } = scene();
  set.put(entry("key_a"));
  const principal = set.find("key_a");
  assert.deepEqual({ ...principal }, { ...profile, id: "key_a" });
  assert.ok(Object.isFrozen(principal));
  assert.equal(set.find("key_a"), principal);
});

test("what changes is in force with the next look", () => {
  const { set, detail } = scene();
  set.put(entry("key_a"));
  assert.equal(detail("key_a"), undefined);
  set.put(entry("key_a", { state: "disabled" }));
  assert.equal(detail("key_a"), "key_a is disabled");
  set.put(entry("key_a", { profile: principalOf({ id: "", tenant: "other", role: "user" }) }));
  assert.equal(set.find("key_a").tenant, "other");
  set.put(entry("key_a", { state: "deleted" }));
  assert.equal(detail("key_a"), "key_a is deleted");
  assert.equal(set.size, 1);
});

test("a key opens nothing before its time and after it", () => {
  const { set, at, detail } = scene();
  set.put(entry("key_a", { notBefore: 2000, expiresAt: 3000 }));
  at(1999);
  assert.equal(detail("key_a"), "key_a is not valid yet");
  at(2000);
  assert.equal(detail("key_a"), undefined);
  at(2999);
  assert.equal(detail("key_a"), undefined);
  at(3000);
  assert.match(detail("key_a") ?? "", /^key_a has expired/);
});

test("uses of stored keys are handed out once", () => {
  const { set, at } = scene();
  set.put(entry("key_a", { stored: true }));
  set.put(entry("key_b", { stored: true }));
  set.put(entry("key_given"));
  at(60_000);
  for (const key of ["key_a", "key_a", "key_given"]) set.find(key);
  assert.deepEqual([...set.takeUsed()], [["key_a", 60_000]]);
  set.find("key_a");
  assert.deepEqual([...set.takeUsed()], [], "the same minute");
  at(120_000);
  set.find("key_a");
  assert.deepEqual([...set.takeUsed()], [["key_a", 120_000]]);
});

test("more principals than are kept made are made again, and right", () => {
  const { set } = scene();
  const count = 17_000;
  for (let n = 0; n < count; n++) set.put(entry(`key_${n}`));
  for (let round = 0; round < 2; round++)
    for (let n = 0; n < count; n += round === 0 ? 1 : 97) assert.equal(set.find(`key_${n}`).id, `key_${n}`);
});

test("digests of keys that were found are kept under a name of this process, so many and no more", () => {
  const one = new DigestCache();
  const name = one.nameOf("key_a");
  assert.notEqual(name, new DigestCache().nameOf("key_a"));
  assert.ok(!name.includes("key_a"));
  one.keep(name, 0);
  assert.equal(one.rowOf(one.nameOf("key_a")), 0);
  for (let i = 1; i <= 16_384; i++) one.keep(`${i}`, i);
  assert.equal(one.rowOf(name), undefined);
});
