/**
 * Media URLs against the guard in a world where every address answers (egress-bed.ts), real name server, real
 * listeners. Skipped where this user can make no network namespace.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { before, type TestContext, test } from "node:test";
import { networkMissing, runInOwnNetwork } from "../fixtures/own-network.ts";
import type { CaseResult } from "./egress-bed.ts";
import { ADDRESSES, BOMBS, NAMES, REDIRECTS, SPELLINGS } from "./egress-cases.ts";

let results: readonly CaseResult[] = [];
let absent: string | undefined;

before(async () => {
  absent = networkMissing();
  if (absent === undefined)
    results = (await runInOwnNetwork(join(import.meta.dirname, "egress-bed.ts"))) as readonly CaseResult[];
});

function group(t: TestContext, name: string): readonly CaseResult[] {
  if (absent !== undefined) t.skip(absent);
  return results.filter((each) => each.group === name);
}

test("public places are reached, by name and by address", (t) => {
  const cases = group(t, "control");
  for (const { url, outcome, records } of cases) {
    assert.equal(outcome, "ok", url);
    assert.deepEqual(
      records.map(({ decision, outcome, rule, kind, tenant, requestId }) => ({
        decision,
        outcome,
        rule,
        kind,
        tenant,
        requestId,
      })),
      [{ decision: "allowed", outcome: "ok", kind: "image", tenant: "t", requestId: "r", rule: undefined }],
    );
  }
  const [first] = cases;
  if (first !== undefined) {
    assert.equal(first.records[0]?.host, "ok.example.net");
    assert.deepEqual(first.records[0]?.addresses, ["93.184.216.34", "2606:4700::1111"]);
    assert.ok((first.records[0]?.bytes ?? 0) > 50);
  }
});

test("nothing inside is reached, nor even connected to, whatever it is called", (t) => {
  const cases = ["spelling", "address", "name", "redirect", "bomb"].flatMap((name) => group(t, name));
  if (absent !== undefined) return;
  const rebinds = Object.keys(NAMES).filter((name) => name.startsWith("rebind")).length;
  const expected =
    SPELLINGS.length + ADDRESSES.length + Object.keys(NAMES).length - 1 + 5 * rebinds + REDIRECTS.length + BOMBS.length;
  assert.equal(cases.length, expected);
  assert.deepEqual(
    cases.filter(({ outcome, intrusions }) => outcome === "SECRET" || intrusions.length > 0),
    [],
  );
  // The bed bites: a fetch without a guard walks in.
  const reached = cases.filter(({ bare }) => bare === "SECRET");
  assert.ok(reached.length > 60, `${reached.length} reached without a guard`);
  t.diagnostic(`${cases.length} cases: 0 pass the guard, ${reached.length} pass without one`);
});

test("which rule refuses is recorded, once a fetch, without the URL's own words", (t) => {
  for (const { url, records } of group(t, "spelling")) {
    const asked = /^https?:/i.test(url);
    assert.equal(records.length, asked ? 1 : 0, url);
    if (asked) assert.ok([1, 2].includes(Number(records[0]?.rule)), `${url}: ${records[0]?.rule}`);
    if (asked) assert.equal(records[0]?.decision, "refused");
  }
  for (const { url, records, outcome } of group(t, "address")) {
    assert.equal(records.length, 1, url);
    assert.equal(outcome, "unusable", url);
    assert.deepEqual([records[0]?.rule, records[0]?.outcome], [4, "forbidden"], url);
  }
  for (const { url, records, outcome } of group(t, "name")) {
    assert.equal(records.length, 1, url);
    const pinned = url.includes("rebind") && outcome === "ok";
    if (!pinned) assert.deepEqual([records[0]?.rule, records[0]?.decision], [4, "refused"], url);
  }
  for (const name of ["control", "redirect", "bomb"])
    for (const { records } of group(t, name)) assert.doesNotMatch(JSON.stringify(records), /\?to=|a\.png|meta-data/);
});

test("a name that is rebound leads where it led when it was judged, or nowhere", (t) => {
  const by = (name: string) =>
    group(t, "name")
      .filter(({ url }) => url.includes(`/${name}.`))
      .map(({ outcome }) => outcome);
  if (absent !== undefined) return void by("rebind2");
  assert.deepEqual(by("rebind2"), ["ok", ...Array<string>(5).fill("unusable")]);
  assert.deepEqual(by("rebind5").filter((each) => each === "ok").length > 0, true);
  for (const name of ["rebind5", "rebind-other", "rebind-six"])
    for (const outcome of by(name)) assert.ok(["ok", "unusable"].includes(outcome), `${name}: ${outcome}`);
});

test("what is found out by asking is told in one sentence", (t) => {
  const cases = ["address", "name", "redirect", "bomb"].flatMap((name) => group(t, name));
  const told = new Set(cases.filter(({ outcome }) => outcome !== "ok").map(({ message }) => message));
  if (absent === undefined)
    assert.deepEqual([...told], ["The media could not be fetched from their URL, or are not what was asked for."]);
});

test("redirects and bombs end in a refusal", (t) => {
  for (const name of ["redirect", "bomb"])
    for (const { url, outcome, records } of group(t, name)) {
      assert.equal(outcome, "unusable", url);
      assert.equal(records.length, 1, url);
    }
  const ruleOf = (path: string) => group(t, "bomb").find(({ url }) => url.endsWith(path))?.records[0];
  if (absent !== undefined) return;
  for (const [path, outcome] of [
    ["/gzip", "protocol"],
    ["/brotli", "protocol"],
    ["/double-gzip", "protocol"],
    ["/large", "too_large"],
    ["/endless", "too_large"],
    ["/drip", "timeout"],
    ["/silence", "timeout"],
    ["/headers", "protocol"],
    ["/informations", "protocol"],
    ["/two-lengths", "protocol"],
    ["/short", "network"],
    ["/pixels", "content"],
    ["/frames", "content"],
    ["/polyglot", "content"],
    ["/lie", "content"],
    ["/missing", "content"],
    [":8081/mute", "timeout"],
  ] as const)
    assert.equal(ruleOf(path)?.outcome, outcome, path);
});
