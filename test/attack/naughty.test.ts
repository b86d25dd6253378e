/**
 * The naughty strings and JSON's parsing cases, replayed over the real server: text is text, and comes back whole.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { corpus } from "../corpora.ts";
import { startServer, type TestServer } from "../harness.ts";

let server: TestServer;
before(async () => {
  server = await startServer();
});
after(() => server.stop());

async function post(path: string, body: unknown): Promise<{ status: number; body: Record<string, unknown> }> {
  const answer = await server.fetch(path, { method: "POST", body: JSON.stringify(body) });
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
}

test("naughty strings: tokens of each give it back; a chat about each is answered", async (t) => {
  const folder = corpus(t, "naughty-strings");
  if (folder === undefined) return;
  const strings = (JSON.parse(readFileSync(join(folder, "blns.json"), "utf8")) as string[]).filter((s) => s !== "");
  assert.ok(strings.length > 400);
  for (const text of strings) {
    const tokens = await post("/tokenize", { prompt: text, add_special_tokens: false });
    assert.equal(tokens.status, 200, text);
    const back = await post("/detokenize", { tokens: tokens.body["tokens"] });
    assert.equal(back.body["prompt"], text);
    const echoed = await post("/v1/completions", { prompt: text, echo: true, max_tokens: 1, temperature: 0 });
    const [choice] = echoed.body["choices"] as { text: string }[];
    assert.ok(choice?.text.startsWith(text), JSON.stringify(text));
    const chat = await post("/v1/chat/completions", { messages: [{ role: "user", content: text }], max_tokens: 1 });
    assert.equal(chat.status, 200, text);
  }
});

test("JSON's parsing cases: what must fail is a 4xx; nothing is a 5xx; the server goes on", async (t) => {
  const folder = corpus(t, "json-test-suite");
  if (folder === undefined) return;
  const cases = readdirSync(join(folder, "test_parsing")).filter((name) => name.endsWith(".json"));
  assert.ok(cases.length > 300);
  for (const name of cases) {
    const answer = await server.fetch("/v1/completions", {
      method: "POST",
      body: readFileSync(join(folder, "test_parsing", name)),
    });
    const text = await answer.text();
    // No case is a whole request, so none may succeed; those that must parse fail for their fields.
    assert.ok(answer.status >= 400 && answer.status < 500, `${name}: ${answer.status} ${text}`);
    assert.equal(typeof JSON.parse(text).error.message, "string", name);
  }
  assert.equal((await server.fetch("/health")).status, 200);
});
