import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Beneath, BeneathError } from "./beneath.ts";

/** A folder with a/b/file in it, beside another with the same names. */
async function folders(t: TestContext): Promise<{ root: string; other: string; beneath: Beneath }> {
  const base = realpathSync(mkdtempSync(join(tmpdir(), "castellan-beneath-")));
  const [root, other] = [join(base, "root"), join(base, "other")];
  for (const each of [root, other]) {
    mkdirSync(join(each, "a/b"), { recursive: true });
    writeFileSync(join(each, "a/b/file"), each);
  }
  const beneath = await Beneath.open(root);
  t.after(async () => {
    await beneath.close();
    rmSync(base, { recursive: true });
  });
  return { root, other, beneath };
}
const NAMES = ["a", "b", "file"];

test("what is read lies in the folder that was opened, whatever its path means later", async (t) => {
  const { root, other, beneath } = await folders(t);
  assert.equal(await beneath.place(), root);
  renameSync(root, `${root}-moved`);
  symlinkSync(other, root);
  assert.equal((await beneath.read(NAMES, 1000)).toString(), root);
  assert.equal(await beneath.place(), `${root}-moved`);
});

test("a folder on the way that became a link leads nowhere, also while it is judged", async (t) => {
  const { root, other, beneath } = await folders(t);
  const swapped = beneath.file(NAMES, (_stats, what) => {
    if (what === "file") return;
    rmSync(join(root, "a"), { recursive: true, force: true });
    symlinkSync(join(other, "a"), join(root, "a"));
  });
  await assert.rejects(swapped, (error) => error instanceof BeneathError && error.cause instanceof Error);
  await assert.rejects(beneath.read(NAMES, 1000), BeneathError);
});

test("each descriptor is judged, from the first folder to the file, and what the judge says ends it", async (t) => {
  const { beneath } = await folders(t);
  const seen: string[] = [];
  const file = await beneath.file(NAMES, (stats, what) => {
    assert.equal(stats.isDirectory(), what === "folder");
    seen.push(what);
  });
  await file.close();
  assert.deepEqual(seen, ["folder", "folder", "folder", "file"]);
  for (const bad of seen.keys()) {
    let at = 0;
    const judge = (): void => {
      if (at++ === bad) throw new RangeError("no");
    };
    await assert.rejects(beneath.file(NAMES, judge), RangeError);
    assert.equal(at, bad + 1);
  }
});
