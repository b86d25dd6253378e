import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { audioForm, judgeAudio } from "./audio.ts";

async function judged(fields: Readonly<Record<string, string | readonly string[]>>, file: string | null = "RIFF") {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields))
    for (const each of typeof value === "string" ? [value] : value) form.append(name, each);
  if (file !== null) form.set("file", new File([file], "a.wav"));
  const request = new Request("http://x", { method: "POST", body: form });
  return judgeAudio(Buffer.from(await request.arrayBuffer()), request.headers.get("content-type") ?? "", DEFAULT_CAPS);
}

async function sent(fields: Parameters<typeof judged>[0], model?: string) {
  const { contentType, pieces } = audioForm(await judged(fields), model);
  const form = await new Response(Buffer.concat(pieces), { headers: { "content-type": contentType } }).formData();
  return [...form.entries()].map(([name, value]) => [name, typeof value === "string" ? value : value.name]);
}

test("known fields go on, the model by the upstream's name, usage is asked for", async () => {
  assert.deepEqual(await sent({ model: "m", language: "en", "timestamp_granularities[]": ["word", "segment"] }), [
    ["model", "m"],
    ["language", "en"],
    ["timestamp_granularities[]", "word"],
    ["timestamp_granularities[]", "segment"],
    ["file", "a.wav"],
  ]);
  assert.deepEqual(await sent({ model: "m", stream: "true", priority: "-9", vllm_xargs: "{}" }, "org/m"), [
    ["model", "org/m"],
    ["stream", "true"],
    ["stream_include_usage", "true"],
    ["file", "a.wav"],
  ]);
  const own = await judged({ stream: "true", stream_include_usage: "true", max_completion_tokens: "7", n: "2" });
  assert.deepEqual([own.strip, own.n, own.maxTokens, own.fileBytes, own.model], [false, 2, 7, 4, undefined]);
  assert.equal((await judged({ stream: "1" })).strip, true);
  assert.deepEqual(await sent({ stream: "false", temperature: "" }), [["file", "a.wav"]]);
});

test("what is out of bounds is refused by name", async () => {
  for (const [name, value] of [
    ["temperature", "1.5"],
    ["temperature", "0x1"],
    ["temperature", "NaN"],
    ["language", "../x"],
    ["response_format", "xml"],
    ["timestamp_granularities[]", "year"],
    ["stream", "maybe"],
    ["n", "100000"],
    ["n", "0"],
    ["max_completion_tokens", "1.5"],
    ["seed", "9".repeat(19)],
    ["language", ["en", "de"]],
    ["model", ["a", "b"]],
  ] as const)
    await assert.rejects(
      judged({ [name]: value }),
      (error) => error instanceof Fault && error.kind === "invalid_request" && error.param === name,
      `${name}=${value}`,
    );
  await assert.rejects(judged({ model: "m" }, null), (error) => error instanceof Fault && error.param === "file");
});
