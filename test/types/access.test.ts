import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";

const root = resolve(import.meta.dirname, "../..");

/** tsc over one file with the project's own settings. */
function check(file: string, folder: string): { status: number | null; output: string } {
  const config = join(folder, "tsconfig.json");
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      compilerOptions: { noEmit: true },
      include: [],
      files: [file],
    }),
  );
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, "node_modules/typescript/bin/tsc"), "-p", config],
    { cwd: root, encoding: "utf8" },
  );
  return { status, output: stdout + stderr };
}

test("what must not compile does not: routes without access, forged and mistaken grants", (t) => {
  // Inside the project, so that its imports resolve.
  const folder = mkdtempSync(join(root, "test/types/.scratch-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const source = join(import.meta.dirname, "access.ts");
  assert.deepEqual(check(source, folder), { status: 0, output: "" });

  // Without the marks each of those lines is an error, and nothing else is.
  const text = readFileSync(source, "utf8");
  const marks = text.split("\n").filter((line) => line.trim().startsWith("// @ts-expect-error"));
  assert.ok(marks.length >= 12, `${marks.length} assertions`);
  const bare = join(folder, "bare.ts");
  writeFileSync(bare, text.replaceAll("// @ts-expect-error", "//"));
  const errors = new Set(check(bare, folder).output.match(/bare\.ts\(\d+/g));
  assert.equal(errors.size, marks.length);
});
