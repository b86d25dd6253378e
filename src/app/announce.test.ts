import assert from "node:assert/strict";
import { test } from "node:test";
import type { PoolTask } from "#core/pool.ts";
import { announce } from "./announce.ts";

function said(tasks: readonly PoolTask[]): string {
  return announce({
    version: "1",
    model: "m",
    description: "(a test)",
    tasks,
    publicAddress: { host: "0.0.0.0", port: 8000 },
    opsAddress: { path: "/run/ops.sock" },
    tls: {},
    keys: { minted: undefined, given: 1, stored: 0 },
    issuers: 0,
    stateDir: "/s",
    warnings: [],
  });
}

test("the line to paste asks for what the model does, in JSON", () => {
  for (const [tasks, path, field] of [
    [[], "/v1/chat/completions", "messages"],
    [["embed", "token_embed"], "/v1/embeddings", "input"],
    [["classify", "score"], "/rerank", "documents"],
    [["classify"], "/classify", "input"],
    [["token_embed"], "/pooling", "input"],
  ] as const) {
    const text = said(tasks);
    assert.ok(text.includes(`curl http://127.0.0.1:8000${path} \\\n`), text);
    const body = JSON.parse(/-d '(.*)'\n/.exec(text)?.[1] ?? "") as Readonly<Record<string, unknown>>;
    assert.equal(body["model"], "m");
    assert.ok(Object.hasOwn(body, field), path);
  }
});
