/**
 * Where the public test vectors are: `../shared/corpora` beside the project's folder. They are not part of the
 * project; a test that replays them skips with a message where they are missing.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { TestContext } from "node:test";

function findCorpora(): string | undefined {
  // A checkout may lie deeper than the project's own folder (a worktree): look beside each parent.
  for (let at = resolve(import.meta.dirname, ".."); dirname(at) !== at; at = dirname(at)) {
    const candidate = join(dirname(at), "shared", "corpora");
    if (existsSync(candidate)) return candidate;
  }
  return undefined;
}

const root = process.env.CASTELLAN_CORPORA ?? findCorpora();

/** The folder of one corpus; where it is missing the test is skipped, with the reason, and undefined comes back. */
export function corpus(t: TestContext, name: string): string | undefined {
  const path = root === undefined ? undefined : join(root, name);
  if (path !== undefined && existsSync(path)) return path;
  t.skip(
    `the corpus ${name} is not here (looked for ../shared/corpora beside the project; CASTELLAN_CORPORA names another place)`,
  );
  return undefined;
}
