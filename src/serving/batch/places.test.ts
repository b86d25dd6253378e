import assert from "node:assert/strict";
import { test } from "node:test";
import { type Candidate, nextMove, type Place } from "./places.ts";

const NOW = 1_000_000;

interface Named extends Place {
  readonly name: string;
}

/** Batches at work, the first the oldest. */
function working(tenants: string): readonly Named[] {
  return [...tenants].map((tenant, at) => ({
    ...{ name: `${tenant}${at}`, tenant, createdAt: at, waitsSince: undefined, unwritten: 0, leaves: false },
  }));
}

/** @param waited seconds, of each */
function waiting(tenants: string, ...waited: readonly number[]): readonly Named[] {
  return working(tenants).map((one, at) => ({ ...one, waitsSince: NOW - 1000 * (waited[at] ?? 60) }));
}

const want = (tenant: string, ends = false): Candidate => ({ tenant, ends });

/** @returns whose batch begins, or which one leaves */
function move(open: readonly Named[], ...candidates: readonly Candidate[]): string {
  const next = nextMove(open, candidates, NOW);
  if (next?.leave !== undefined) return `${next.leave.name} leaves`;
  return next === undefined ? "nothing" : `${next.begin.tenant} begins`;
}

test("four are at work, of the tenants with the fewest first; a tenant's first is none too many", () => {
  assert.equal(move([], want("a"), want("b")), "a begins");
  assert.equal(move(working("aab"), want("a"), want("b")), "b begins");
  assert.equal(move(working("aaab"), want("a")), "nothing");
  assert.equal(move(working("aaaa"), want("b")), "b begins");
  assert.equal(move(working("abcdefg"), want("h")), "h begins");
  assert.equal(move(working("abcdefgh"), want("i")), "nothing", "all that can be open are");
  assert.equal(move(working("aaaa"), want("a", true)), "a begins", "there is nothing to run of it");
});

test("those that only wait are not at work", () => {
  assert.equal(move(waiting("aaaa"), want("a")), "a begins");
  assert.equal(move([...waiting("aaaa"), ...working("bbb")], want("b")), "b begins");
  assert.equal(move(waiting("aaaa", 60, 60, 60, 1), want("a")), "a begins", "three do");
  assert.equal(move(waiting("aaaa", 1, 1, 1, 1), want("a")), "nothing", "they go on in a moment");
});

test("where all that can be open are, what has waited longest leaves, before others what loses nothing by it", () => {
  const open = waiting("aaaabbbb", 60, 70, 80, 70, 60, 60, 90, 60);
  assert.equal(move(open, want("c")), "b6 leaves");
  assert.equal(move(open, want("a")), "b6 leaves");
  const unwritten = open.map((one) => (one.name === "b6" || one.name === "a2" ? { ...one, unwritten: 3 } : one));
  assert.equal(move(unwritten, want("c")), "a1 leaves");
  assert.equal(move(unwritten.slice(1), want("c")), "c begins");
  const all = open.map((one) => ({ ...one, unwritten: 1 }));
  assert.equal(move(all, want("c")), "b6 leaves");
  const left = open.map((one) => (one.name === "b6" ? { ...one, leaves: true } : one));
  assert.equal(move(left, want("c")), "nothing", "a place is about to be free");
});

test("a tenant that has two more at work than one that wants a place gives its youngest up", () => {
  assert.equal(move(working("aaab"), want("b")), "a2 leaves");
  assert.equal(move(working("aabb"), want("b"), want("a")), "nothing");
  assert.equal(move(working("aaaaaaaa"), want("b")), "a7 leaves");
  assert.equal(move(working("aaaccccc"), want("b")), "c7 leaves", "of who has the most");
  // One that can get no place is in nobody's way.
  assert.equal(move(working("aaaaaaaa"), want("a", true), want("b")), "a7 leaves");
});

test("nobody is told to leave for ever: shares that are even stay", () => {
  let open = working("aaaaaaaa");
  const candidates = [..."bbbbbbbb"].map((tenant) => want(tenant));
  for (let moves = 0; ; moves++) {
    assert.ok(moves < 20, "it ends");
    const next = nextMove(open, candidates, NOW);
    if (next === undefined) break;
    if (next.leave !== undefined) open = open.filter((one) => one !== next.leave);
    else {
      candidates.splice(candidates.indexOf(next.begin), 1);
      open = [...open, { ...working(next.begin.tenant)[0], createdAt: moves } as Named];
    }
  }
  const own = (tenant: string): number => open.filter((one) => one.tenant === tenant).length;
  assert.deepEqual([own("a"), own("b")], [2, 2]);
});
