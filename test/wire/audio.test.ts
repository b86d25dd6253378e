/**
 * The audio routes before there is audio: every wall in its order, then 501 in words; and no upgrade for anybody.
 */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import OpenAI, { APIError, toFile } from "openai";
import { resolveSettings } from "#config/resolve.ts";
import { createHttp } from "#http/server.ts";
import { principalOf } from "#policy/roles.ts";
import { routes } from "#routes/index.ts";
import { fixture } from "#serving/_fixture.ts";
import { gateOf, servicesOf } from "#test/fixtures/services.ts";
import { exchange, message, statusOf } from "#test/http/harness.ts";
import { openai } from "#wire/openai/dialect.ts";

const TEXT = "The model does not support audio: this server runs models of text only.";
const PATHS = ["/v1/audio/transcriptions", "/v1/audio/translations"];

async function server(t: TestContext, options: { readonly maxAudioBytes?: number } = {}) {
  const user = principalOf({ id: "k", tenant: "t", role: "user" });
  const http = await createHttp({
    routes,
    services: servicesOf(fixture()),
    gate: gateOf({
      key: user,
      small: { ...user, caps: { audioMegabytes: 1 } },
      mute: principalOf({ id: "m", tenant: "t", role: "operator" }),
    }),
    dialect: openai,
    options,
  });
  t.after(() => http.close(0));
  const address = await http.listen("public", { host: "127.0.0.1", port: 0 });
  return { http, port: "port" in address ? address.port : 0 };
}

test("the official client hears why", async (t) => {
  const { port } = await server(t);
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: "key", maxRetries: 0 });
  const request = { model: "demo", file: await toFile(Buffer.alloc(2000), "a.wav") };
  for (const route of [client.audio.transcriptions, client.audio.translations])
    await assert.rejects(
      async () => route.create(request),
      (error: unknown) => {
        assert.ok(error instanceof APIError);
        assert.deepEqual([error.status, error.type], [501, "NotImplementedError"]);
        assert.equal((error.error as { message: string }).message, TEXT);
        return true;
      },
    );
});

test("key, scope, type and size are looked at before", async (t) => {
  const { port } = await server(t);
  const form = "Content-Type: multipart/form-data; boundary=x";
  for (const path of PATHS) {
    const status = async (headers: string[], body = "--x--"): Promise<number> =>
      statusOf(await exchange(port, message(`POST ${path}`, [...headers, `Content-Length: ${body.length}`]) + body));
    const as = (token: string): string => `Authorization: Bearer ${token}`;
    assert.equal(await status([form]), 401);
    assert.equal(await status([form, as("nobody")]), 401);
    assert.equal(await status([form, as("mute")]), 403);
    assert.equal(await status(["Content-Type: application/json", as("key")], "{}"), 400);
    assert.equal(await status(["Content-Type: multipart/mixed; boundary=x", as("key")]), 400);
    assert.equal(await status([form, as("key")], "x".repeat(1024)), 400);
    const file = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n';
    assert.equal(await status([form, as("key")], file), 501);
    const announced = [form, as("small"), "Content-Length: 9999999"];
    assert.equal(statusOf(await exchange(port, message(`POST ${path}`, announced))), 413);
    // Announced and not sent: nothing of it is waited for.
    assert.equal(
      statusOf(await exchange(port, message(`POST ${path}`, [form, as("key"), "Content-Length: 99999999"]))),
      413,
    );
    assert.equal(statusOf(await exchange(port, message(`POST ${path}`, [form, "Content-Length: 99999999"]))), 401);
  }
});

test("the size of a file of speech is the operator's to say, in vLLM's variable, and a key's", async (t) => {
  const { settings } = resolveSettings([], { VLLM_MAX_AUDIO_CLIP_FILESIZE_MB: "40" });
  assert.equal(settings.maxAudioMegabytes, 40);
  const { port } = await server(t, { maxAudioBytes: settings.maxAudioMegabytes * 1024 ** 2 });
  const announced = async (token: string, mebibytes: number): Promise<number> => {
    const headers = ["Content-Type: multipart/form-data; boundary=x", `Authorization: Bearer ${token}`];
    const file = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF';
    const size = `Content-Length: ${mebibytes * 1024 ** 2}`;
    return statusOf(await exchange(port, `${message(`POST ${PATHS[0]}`, [...headers, size])}--x\r\n${file}`));
  };
  assert.deepEqual([await announced("key", 40), await announced("key", 42)], [501, 413]);
  assert.deepEqual([await announced("small", 1), await announced("small", 3)], [501, 413]);
});

/** All that vLLM's forms have (transcription/protocol.py), besides the file. */
const FIELDS: Readonly<Record<string, string>> = {
  ...{ model: "demo", language: "en", to_language: "de", prompt: "a", hotwords: "b", response_format: "verbose_json" },
  ...{ "timestamp_granularities[]": "word", stream: "true", stream_include_usage: "true", temperature: "0.5" },
  ...{ stream_continuous_usage_stats: "true", top_p: "0.5", top_k: "5", min_p: "0.1", seed: "7", n: "2" },
  ...{ frequency_penalty: "1", repetition_penalty: "1.1", presence_penalty: "1", max_completion_tokens: "9" },
  ...{ use_beam_search: "true", length_penalty: "2", include_stop_str_in_output: "true", vllm_xargs: "{}" },
};

test("every field of the forms is taken up to the file, alone and together, and the answer says what is missing", async (t) => {
  const { port } = await server(t);
  const send = async (path: string, fields: Readonly<Record<string, string>>): Promise<[number, string]> => {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", new Blob([Buffer.alloc(100)]), "a.wav");
    const headers = { authorization: "Bearer key" };
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body: form, headers });
    return [answer.status, ((await answer.json()) as { error: { message: string } }).error.message];
  };
  for (const path of PATHS) {
    assert.deepEqual(await send(path, FIELDS), [501, TEXT]);
    for (const [name, value] of Object.entries(FIELDS))
      assert.deepEqual(await send(path, { [name]: value }), [501, TEXT], name);
    assert.equal((await send(path, { prompt: "x".repeat(20_000) }))[0], 400, "a field that is too long");
  }
});

const UPGRADE = [
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

test("an upgrade is answered like any request, in HTTP, and ends the connection", async (t) => {
  const { port } = await server(t);
  for (const [headers, status] of [
    [[], 401],
    [["Authorization: Bearer nobody"], 401],
    [["Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.key"], 401],
    [["Authorization: Bearer mute"], 403],
    [["Authorization: Bearer key"], 501],
  ] as const) {
    // A frame, and a request, behind the handshake: neither is read as one.
    const behind = message("GET /health");
    const answer = await exchange(
      port,
      `${message("GET /v1/realtime", [...UPGRADE, ...headers])}\x81\x05hello${behind}`,
    );
    assert.equal(statusOf(answer), status, String(answer));
    assert.equal(String(answer).match(/HTTP\/1\.1 /g)?.length, 1);
    assert.match(String(answer), /connection: close/i);
    assert.doesNotMatch(String(answer), /HTTP\/1\.1 101|sec-websocket-accept/i);
  }
});

test("a client of WebSockets fails to open", async (t) => {
  const { port } = await server(t);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/v1/realtime`);
  const seen = await new Promise((resolve) => {
    socket.onopen = () => resolve("open");
    socket.onerror = () => resolve("error");
  });
  assert.equal(seen, "error");
});
