/**
 * What of a client's request reaches a server behind a gateway, byte for byte: the method, the path, headers that the
 * gateway wrote, and the body with what the client may not decide taken out or set.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { dataUrl } from "#egress/media/data-url.ts";
import type { Turn } from "../fixtures/fault-server.ts";
import { png } from "../fixtures/images.ts";
import {
  completion,
  gatewayBefore,
  keyFile,
  type RecordingUpstream,
  recordingUpstream,
  UPSTREAM_KEY,
} from "../fixtures/recording-upstream.ts";
import { startServer, type TestServer, until } from "../harness.ts";

let upstream: RecordingUpstream;
let gateway: TestServer;

before(async () => {
  upstream = await recordingUpstream(({ socket }) => socket.write(completion()));
  gateway = await gatewayBefore(upstream);
});
after(async () => {
  await gateway.stop();
  await upstream.close();
});
beforeEach(() => {
  upstream.calls.length = 0;
});

/** Headers of a client that tries to be somebody, or to be more than one request. */
const NOISE = {
  "x-request-id": "mine",
  "x-forwarded-for": "127.0.0.1",
  "x-vllm-priority": "-5",
  "x-data-parallel-rank": "0",
  cookie: "session=1",
  te: "trailers",
  "accept-encoding": "gzip",
  via: "1.1 somewhere",
  "idempotency-key": "again",
};

const post = (path: string, body: string | Buffer) => gateway.fetch(path, { method: "POST", body, headers: NOISE });

function only(): Turn {
  assert.equal(upstream.calls.length, 1);
  return upstream.calls[0] ?? assert.fail();
}

/** The head that a gateway writes: nothing more and nothing else. @returns the call's id */
function checkHead({ head, body }: Turn, path: string): string {
  const id = /\r\nx-request-id: ([0-9a-f]{32})\r\n/.exec(head)?.[1] ?? "none";
  assert.equal(
    head,
    [
      `POST ${path} HTTP/1.1`,
      `host: 127.0.0.1:${upstream.port}`,
      "connection: keep-alive",
      "accept-encoding: identity",
      "content-type: application/json",
      `x-request-id: ${id}`,
      `authorization: Bearer ${UPSTREAM_KEY}`,
      `content-length: ${body.length}`,
      "",
      "",
    ].join("\r\n"),
  );
  return id;
}

/** The body as it arrived, with its salt and its id as words. */
function arrived(path = "/v1/completions"): { readonly text: string; readonly salt: string | undefined } {
  const turn = only();
  const id = checkHead(turn, path);
  const body = turn.body.toString();
  const { cache_salt: salt } = JSON.parse(body) as { cache_salt?: string };
  if (salt !== undefined) assert.match(salt, /^[A-Za-z0-9_-]{43}$/);
  const text = body.replaceAll(id, "ID");
  return { text: salt === undefined ? text : text.replaceAll(salt, "SALT"), salt };
}

/** What a client wrote behind the model's name, and what arrives behind what the server has written there. */
const PASSED: readonly (readonly [client: string, passed: string])[] = [
  ['"prompt":"Hi"', '"cache_salt":"SALT","request_id":"ID","model":"inside","prompt":"Hi"'],
  ['"cache_salt":"mine","prompt":"Hi"', '"request_id":"ID","model":"inside","cache_salt":"SALT","prompt":"Hi"'],
  ['"cache_salt":null,"prompt":"Hi"', '"request_id":"ID","model":"inside","cache_salt":"SALT","prompt":"Hi"'],
  // An escape in a key is the same key to whoever reads it.
  [
    '"cache\\u005fsalt":"mine","prompt":"Hi"',
    '"request_id":"ID","model":"inside","cache\\u005fsalt":"SALT","prompt":"Hi"',
  ],
  ['"request_id":"mine","prompt":"Hi"', '"cache_salt":"SALT","model":"inside","request_id":"ID","prompt":"Hi"'],
  [
    '"request\\u005fid":"mine","prompt":"Hi"',
    '"cache_salt":"SALT","model":"inside","request\\u005fid":"ID","prompt":"Hi"',
  ],
  ['"priority":0,"prompt":"Hi"', '"cache_salt":"SALT","request_id":"ID","model":"inside","priority":0,"prompt":"Hi"'],
  // Taken here and without effect: so not passed on.
  ['"prompt":"Hi","vllm_xargs":{"a":1}', '"cache_salt":"SALT","request_id":"ID","model":"inside","prompt":"Hi"'],
  // Nobody here knows them; they might be anything to an upstream of another version.
  [
    '"extra_body":{"a":1},"prompt":"Hi","\\u0070lugin":"x" , "best_of":3',
    '"cache_salt":"SALT","request_id":"ID","model":"inside","prompt":"Hi"',
  ],
  // White space, numbers and escapes of what is the client's stay as they were.
  [
    ' "prompt" : "H\\u0069\\n" , "cache_salt" : "mine" , "temperature" : 0.10e1 ',
    '"request_id":"ID","model":"inside", "prompt" : "H\\u0069\\n" , "cache_salt" : "SALT" , "temperature" : 0.10e1 ',
  ],
];

test("a body arrives as it was written, but for what the server decides", async () => {
  for (const [client, passed] of PASSED) {
    upstream.calls.length = 0;
    const answer = await post("/v1/completions", `{"model":"outside",${client}}`);
    assert.equal(answer.status, 200, client);
    assert.equal(arrived().text, `{${passed}}`, client);
  }
});

test("no salt of a client's reaches the upstream, and one that it sends makes another of its tenant's", async () => {
  const saltOf = async (client: string): Promise<string> => {
    upstream.calls.length = 0;
    assert.equal((await post("/v1/completions", `{"model":"outside","prompt":"Hi"${client}}`)).status, 200);
    return arrived().salt ?? assert.fail("no salt");
  };
  const own = await saltOf("");
  assert.equal(await saltOf(""), own);
  const asked = await saltOf(',"cache_salt":"mine"');
  assert.notEqual(asked, own);
  assert.equal(await saltOf(',"cache\\u005fsalt":"mine"'), asked);
  // Nobody gets the tenant's, or another's, by spelling it out.
  for (const known of [own, asked]) assert.ok(![own, asked].includes(await saltOf(`,"cache_salt":"${known}"`)));
});

const NOT_THE_CLIENTS = [
  "kv_transfer_params",
  "ec_transfer_params",
  "chat_template",
  "mm_processor_kwargs",
  "media_io_kwargs",
  "logits_processors",
  "prompt_embeds",
];
const INPUTS = ["extra_args", "mm_hashes", "mm_placeholders", "multi_modal_data", "multi_modal_uuids"];

/** The same name to whoever reads JSON. */
const escaped = (name: string): string => `\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}`;

async function refused(path: string, body: string, because: RegExp, status = 400): Promise<void> {
  const answer = await post(path, body);
  const text = await answer.text();
  assert.equal(answer.status, status, `${body} ${text}`);
  assert.match(text, because, body);
  assert.equal(upstream.calls.length, 0, body);
}

test("what a client may not say is refused by name, and never sent", async () => {
  const body = (fields: string): string => `{"model":"outside","prompt":"Hi",${fields}}`;
  for (const name of [...NOT_THE_CLIENTS, ...INPUTS]) {
    const named = new RegExp(`"param":"${name}"`);
    for (const value of ['{"a":1}', '"x"', '["x"]'])
      await refused("/v1/completions", body(`"${name}":${value}`), named);
    await refused("/v1/completions", body(`"${escaped(name)}":{"a":1}`), named);
    await refused("/v1/completions", body(`"${name}":null,"${escaped(name)}":{"a":1}`), /the key stands twice/);
  }
  for (const name of NOT_THE_CLIENTS) {
    upstream.calls.length = 0;
    assert.equal((await post("/v1/completions", body(`"${name}":null`))).status, 200);
    assert.equal(arrived().text, '{"cache_salt":"SALT","request_id":"ID","model":"inside","prompt":"Hi"}');
  }
});

test("keys that stand twice, urgency that the key may not ask for, salts that are none: refused", async () => {
  const body = (fields: string): string => `{"model":"outside","prompt":"Hi",${fields}}`;
  for (const [fields, because] of [
    ['"cache_salt":"a","cache_salt":"b"', /stands twice/],
    ['"cache_salt":"a","cache\\u005fsalt":"b"', /stands twice/],
    ['"mode\\u006c":"elsewhere"', /stands twice/],
    ['"stream":false,"stream":true', /stands twice/],
    ['"priority":-1', /"param":"priority"/],
    ['"priority":5', /"param":"priority"/],
    ['"pri\\u006frity":-9', /"param":"priority"/],
    ['"cache_salt":""', /"param":"cache_salt"/],
    ['"cache_salt":7', /"param":"cache_salt"/],
    ['"__proto__":{"cache_salt":"x"}', /"param":"__proto__"/],
  ] as const)
    await refused("/v1/completions", body(fields), because);
});

const chat = (parts: string): string =>
  `{"model":"outside","messages":[{"role":"user","content":[{"type":"text","text":"Hi"},${parts}]}]}`;
const DATA = dataUrl("image/png", png(2, 2));

test("a medium's uuid, which would name an entry of everybody's cache, arrives as null", async () => {
  for (const [client, passed] of [
    [
      `{"type":"image_url","image_url":{"url":"${DATA}"},"uuid":"mine"}`,
      `{"type":"image_url","image_url":{"url":"${DATA}"},"uuid":null}`,
    ],
    [
      `{"type":"image_url","image_url":{"url":"${DATA}","uuid":"mine"}}`,
      `{"type":"image_url","image_url":{"url":"${DATA}","uuid":null}}`,
    ],
    [
      `{"type":"image_url","image_url":{"url":"${DATA}"},"\\u0075uid":["mine"]}`,
      `{"type":"image_url","image_url":{"url":"${DATA}"},"\\u0075uid":null}`,
    ],
  ] as const) {
    upstream.calls.length = 0;
    assert.equal((await post("/v1/chat/completions", chat(client))).status, 200, client);
    const sent = chat(passed).replace('"model":"outside"', '"cache_salt":"SALT","request_id":"ID","model":"inside"');
    assert.equal(arrived("/v1/chat/completions").text, sent);
  }
});

const METADATA = "http://169.254.169.254/latest/meta-data";

test("a URL that a server behind would fetch is refused, and never sent", async () => {
  for (const part of [
    `{"type":"image_url","image_url":{"url":"${METADATA}"}}`,
    `{"type":"image_url","image_url":{"url":"HTTP://169.254.169.254/"}}`,
    `{"type":"image_url","image_url":{"url":" \\thttp://169.254.169.254/"}}`,
    `{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}`,
    `{"type":"image_url","image_url":{"url":"//169.254.169.254/"}}`,
    `{"type":"image_url","image_url":"${METADATA}"}`,
    `{"type":"image_url","image\\u005furl":{"\\u0075rl":"${METADATA}"}}`,
    `{"type":"image_url","image_url":{"url":"${DATA}","url":"${METADATA}"}}`,
    `{"type":"text","text":"x","image_url":{"url":"${METADATA}"}}`,
    `{"type":"video_url","video_url":{"url":"${METADATA}"}}`,
    `{"type":"audio_url","audio_url":{"url":"${METADATA}"}}`,
    `{"type":"file","file":{"file_url":"${METADATA}"}}`,
    `{"type":"image_embeds","image_embeds":"AAAA"}`,
    `{"type":"document_url","document_url":{"address":"${METADATA}"}}`,
    `{"\\u0074ype":"document_url","document_url":"${METADATA}"}`,
  ])
    await refused("/v1/chat/completions", chat(part), /"param":"|stands twice/);
  const blocks = `{"type":"image","source":{"type":"url","url":"${METADATA}"}}`;
  for (const content of [blocks, `{"type":"tool_result","tool_use_id":"a","content":[${blocks}]}`])
    await refused(
      "/v1/messages",
      `{"model":"outside","max_tokens":5,"messages":[{"role":"user","content":[${content}]}]}`,
      /source\.url/,
    );
  await refused(
    "/v1/responses",
    `{"model":"outside","input":[{"role":"user","content":[{"type":"input_image","image_url":"${METADATA}"}]}]}`,
    /image_url/,
  );
});

test("media in base64 beside its type is judged as what is fetched, and arrives as it was", async () => {
  const base64 = (bytes: Buffer): string => bytes.toString("base64");
  const anthropic = (data: string, type = "image/png"): string =>
    `{"model":"outside","max_tokens":5,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"${type}","data":"${data}"}}]}]}`;
  const speech = (data: string): string =>
    chat(`{"type":"input_audio","input_audio":{"data":"${data}","format":"wav"}}`);
  for (const data of [
    base64(png(30_000, 30_000, { rows: 1 })),
    base64(Buffer.from("<html>")),
    base64(png(2, 2)).replace("i", " i"),
    "",
  ])
    await refused("/v1/messages", anthropic(data), /source\.data/);
  await refused("/v1/messages", anthropic(base64(png(2, 2)), "image/gif"), /source\.data/);
  for (const data of [base64(png(2, 2)), base64(Buffer.from("RIFF")), "AAAA="])
    await refused("/v1/chat/completions", speech(data), /input_audio\.data/);
  const whole = anthropic(base64(png(2, 2)));
  assert.equal((await post("/v1/messages", whole)).status, 200);
  const sent = whole.replace('"model":"outside"', '"cache_salt":"SALT","request_id":"ID","model":"inside"');
  assert.equal(arrived("/v1/messages").text, sent);
  const wav = Buffer.concat([Buffer.from("RIFF\0\0\0\0WAVEfmt "), Buffer.alloc(40)]);
  upstream.calls.length = 0;
  assert.equal((await post("/v1/chat/completions", speech(base64(wav)))).status, 200);
  assert.match(arrived("/v1/chat/completions").text, new RegExp(`"data":"${base64(wav).replaceAll("+", "\\+")}"`));
});

test("fields that the operator has named go on, but none that no client may set", async () => {
  const named = ["--upstream", upstream.origin, "--upstream-key-file", keyFile(), "--upstream-pass-fields"];
  const passing = await startServer({ args: [...named, "plugin"] });
  const body = '{"model":"inside","prompt":"Hi","plugin":{"a" : 1},"other":1}';
  assert.equal((await passing.fetch("/v1/completions", { method: "POST", body })).status, 200);
  await passing.stop();
  assert.match(only().body.toString(), /"model":"inside","prompt":"Hi","plugin":\{"a" : 1\}\}$/);
  const refusing = await startServer({ args: [...named, "kv_transfer_params"], waitReady: false });
  assert.notEqual(await refusing.exited, 0);
  await refusing.stop();
  assert.match(refusing.stderr(), /--upstream-pass-fields: kv_transfer_params is never passed on/);
});

test("a tool that a server behind would run is refused, and never sent", async () => {
  const own = '{"type":"function","name":"f","parameters":{}}';
  const body = (tool: string): string => `{"model":"outside","input":"Hi","tools":[${own},${tool}]}`;
  for (const tool of [
    '{"type":"code_interpreter","container":{"type":"auto"}}',
    '{"type":"mcp","server_label":"code_interpreter","server_url":"http://169.254.169.254/"}',
    '{"type":"web_search_preview"}',
    '{"type":"container"}',
    '{"t\\u0079pe":"mcp","server_label":"x"}',
  ])
    await refused("/v1/responses", body(tool), /"param":"tools\.1\.type"/, 501);
  for (const tool of ['{"type":"function","type":"mcp"}', '{"name":"f"}', '"mcp"'])
    await refused("/v1/responses", body(tool), /"param":"tools\.1(?:\.type)?"/);
});

test("the path is the declared one, whatever was written; parameters of no route go nowhere", async () => {
  for (const path of [
    "/v1/completions?x=1",
    "/v1/completions/",
    "/v1//completions",
    "/v1/./completions",
    "/v1/%63ompletions",
    "/V1/completions",
    "/v1/completions;a=b",
    "/v1/completions%00",
    "/v1/models/../completions/../../pause",
    "/pause",
    "/collective_rpc",
    "/v1/load_lora_adapter",
  ]) {
    upstream.calls.length = 0;
    await post(path, '{"model":"outside","prompt":"Hi"}').then((answer) => answer.text());
    assert.ok(upstream.calls.length <= 1, path);
    if (upstream.calls.length === 1) arrived();
  }
});

test("a prompt of two megabytes arrives whole, with a few bytes changed", async () => {
  const prompt = JSON.stringify(`${"The quick brown fox — “jumps”. ".repeat(60_000)}end`);
  const bytes = Buffer.byteLength(prompt);
  assert.ok(bytes > 2_000_000);
  const answer = await post("/v1/completions", `{"prompt":${prompt},"model":"outside","cache_salt":"mine"}`);
  assert.equal(answer.status, 200, await answer.text());
  const { text } = arrived();
  assert.ok(text === `{"request_id":"ID","prompt":${prompt},"model":"inside","cache_salt":"SALT"}`);
});

test("many large prompts leave nothing behind", { timeout: 120_000 }, async () => {
  const value = async (name: string): Promise<number> => {
    const { adminKey, opsUrl } = gateway;
    const text = await (await fetch(`${opsUrl}/metrics`, { headers: { authorization: `Bearer ${adminKey}` } })).text();
    return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1] ?? assert.fail(name));
  };
  const held = async () => (await value("nodejs_external_memory_bytes")) + (await value("nodejs_heap_size_used_bytes"));
  const body = Buffer.from(`{"model":"outside","prompt":${JSON.stringify("words ".repeat(350_000))}}`);
  const before = await held();
  const rounds = 12;
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: 4 }, async () => (await post("/v1/completions", body)).text()));
    assert.equal(upstream.calls.length, 4);
    for (const call of upstream.calls.splice(0)) assert.ok(call.body.length > body.length);
  }
  // 100 MB went through: what is left when the collector has looked is less than a fifth.
  await until("the memory is given back", async () => {
    await (await post("/v1/completions", '{"model":"outside","prompt":"Hi"}')).text();
    return (await held()) - before < (rounds * 4 * body.length) / 5;
  });
});
