/**
 * The table of advisories: complete, and true as far as names go. What the rows claim is tested where they say.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { ROWS } from "./rows.ts";

const ROOT = resolve(import.meta.dirname, "../..");

test("98 advisories and two issues, each id once", (t) => {
  assert.equal(ROWS.length, 100);
  assert.equal(ROWS.filter(({ ids }) => ids.every((id) => id.startsWith("#"))).length, 2);
  const ids = ROWS.flatMap((row) => row.ids);
  assert.equal(new Set(ids).size, ids.length);
  for (const id of ids) assert.match(id, /^(CVE-20\d\d-\d{4,6}|GHSA(-[a-z0-9]{4}){3}|#\d+)$/);
  const count = (proof: string): number => ROWS.filter((row) => proof in row).length;
  t.diagnostic(
    `advisories: ${count("requests")} by requests, ${count("test")} by tests, ${count("cannot")} cannot apply, ${count("later")} wait`,
  );
});

test("a test that a row names is there", () => {
  for (const row of ROWS) {
    if (!("test" in row)) continue;
    const [file, name] = row.test;
    const path = join(ROOT, file);
    assert.ok(existsSync(path), `${row.ids[0]}: ${file}`);
    const titles = [...readFileSync(path, "utf8").matchAll(/\b(?:test|it)\(\s*(["`])(.*?)\1/g)].map(
      ([, , title]) => title,
    );
    assert.ok(
      titles.some((title) => title === name || (title?.includes("${") && title.endsWith(name))),
      `${row.ids[0]}: no test "${name}" in ${file}`,
    );
  }
});

test("what waits is what is not done here, and says why", () => {
  for (const row of ROWS) if ("later" in row) assert.ok(row.why.length > 40, row.ids[0]);
  const waiting = ROWS.flatMap((row) => ("later" in row ? [`${row.later} ${row.ids[0]}`] : [])).sort();
  assert.deepEqual(waiting, [
    "cluster CVE-2025-29783",
    "cluster CVE-2025-30165",
    "media CVE-2026-12491",
    "media CVE-2026-22778",
    "media CVE-2026-34760",
    "media CVE-2026-54233",
    "media GHSA-99f2-hwrc-gvq8",
    "media GHSA-jcq2-4gch-5qhf",
    "media GHSA-m52c-39rh-f3gp",
  ]);
});
