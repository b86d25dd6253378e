/**
 * Requests of the advisories against the real server: each is refused by name, and the server is as it was.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { homedir, hostname, userInfo } from "node:os";
import { after, before, test } from "node:test";
import { startServer, type TestServer } from "../harness.ts";
import { ROWS } from "./rows.ts";

const PROC = existsSync("/proc/self/status");
let server: TestServer;
before(async () => {
  server = await startServer({ args: ["--max-num-seqs", "2"] });
});
after(() => server.stop());

const messages = [{ role: "user", content: "hi" }];

async function post(path: string, body: unknown): Promise<{ readonly status: number; readonly text: string }> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const response = await server.fetch(path, { method: "POST", body: text });
  return { status: response.status, text: await response.text() };
}

async function answer(more: object = {}): Promise<string> {
  const body = { prompt: "What is Castellan?", max_tokens: 12, temperature: 0, ...more };
  const { status, text } = await post("/v1/completions", body);
  assert.equal(status, 200, text);
  return (JSON.parse(text) as { choices: { text: string }[] }).choices[0]?.text ?? "";
}

for (const row of ROWS) {
  if (!("requests" in row)) continue;
  test(`${row.ids.join(", ")}: ${row.fault}`, async () => {
    const [engine] = server.descendants();
    for (const [path, body, names] of row.requests) {
      const { status, text } = await post(path, body);
      assert.ok(
        (status >= 400 && status < 500) || status === 501,
        `${status} ${text} for ${JSON.stringify(body).slice(0, 200)}`,
      );
      const reply = JSON.parse(text) as {
        type?: string;
        error: { message: string; param?: string | null; code?: number };
      };
      const { error } = reply;
      if (reply.type !== "error") assert.equal(error.code, status);
      assert.match(`${error.param} ${error.message}`, names);
    }
    assert.notEqual(await answer(), "");
    assert.deepEqual(server.descendants()[0], engine, "the engine is the one that it was");
  });
}

test("a hundred uploads of tensors at once are all refused", async () => {
  const statuses = await Promise.all(
    Array.from({ length: 100 }, async (_, i) => {
      const body = { prompt: "a", prompt_embeds: Buffer.alloc(1000 + i).toString("base64"), max_tokens: 1 };
      return (await post("/v1/completions", body)).status;
    }),
  );
  assert.deepEqual(new Set(statuses), new Set([400]));
});

test("what one request allows does not hold for the next in its place", async () => {
  const free = await answer();
  const [token = 0] = (
    JSON.parse((await post("/tokenize", { prompt: "q", add_special_tokens: false })).text) as { tokens: number[] }
  ).tokens;
  const held = await answer({ allowed_token_ids: [token], ignore_eos: true, max_tokens: 4 });
  assert.match(held, /^q+$/);
  for (let i = 0; i < 4; i++) assert.equal(await answer(), free);
});

test("best_of draws nothing more", async () => {
  const { status, text } = await post("/v1/completions", {
    prompt: "a",
    max_tokens: 3,
    ignore_eos: true,
    best_of: 1e9,
  });
  assert.equal(status, 200);
  assert.equal((JSON.parse(text) as { usage: { completion_tokens: number } }).usage.completion_tokens, 3);
});

test("/tokenize refuses what would choose a processor, and keeps nothing", {
  skip: PROC ? false : "no /proc",
}, async () => {
  const refuse = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const body = { messages, mm_processor_kwargs: { size: i, pad: `${i}`.padEnd(100_000, "x") } };
      assert.equal((await post("/tokenize", body)).status, 400);
    }
  };
  await refuse(300);
  const before = residentBytes();
  await refuse(1500);
  assert.ok(residentBytes() - before < 100e6, "of 150 MB that were sent a part at most is still there");
});

function residentBytes(): number {
  const status = readFileSync(`/proc/${server.child.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}

test("no answer tells a path, a user or an address of this machine", async () => {
  const answers = await Promise.all([
    post("/v1/chat/completions", { messages, model: "/etc/passwd" }),
    post("/v1/chat/completions", { messages, chat_template_kwargs: { enable_thinking: { a: 1 } } }),
    post("/v1/chat/completions", { messages: [{ role: "user", content: 5 }] }),
    post("/v1/completions", "{"),
    post("/v1/completions", { prompt: "a".repeat(3_000_000) }),
    post("/v1/messages", { model: "/etc/passwd", max_tokens: 1, messages }),
    post("/v1/messages", { model: "castellan-demo", max_tokens: 1, messages: [{ role: "user", content: 5 }] }),
    post("/v1/messages", "{"),
    post("/nowhere", {}),
    server.fetch("/v1/models").then(async (response) => ({ status: response.status, text: await response.text() })),
    server.fetch("/version").then(async (response) => ({ status: response.status, text: await response.text() })),
  ]);
  const secrets = [
    process.cwd(),
    homedir(),
    server.stateDir,
    `${userInfo().username}@`,
    "/tmp",
    ".gguf",
    "node_modules",
    "    at ",
  ];
  for (const { text } of answers) {
    for (const secret of secrets) assert.ok(!text.includes(secret), `${secret} in ${text}`);
    assert.doesNotMatch(text, /0x[0-9a-f]{6,}|\b\d{1,3}(?:\.\d{1,3}){3}\b/, text);
    if (hostname().length > 3) assert.ok(!text.includes(hostname()), text);
  }
});
