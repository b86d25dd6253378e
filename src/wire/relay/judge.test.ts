import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Fault, invalid } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { judgeRelay, neverPassed, type RelayFacts, type RelayVerdict, relayBody } from "./judge.ts";
import { RELAY_RULES, type RelayRule } from "./rules.ts";

const {
  "/v1/chat/completions": chatRule,
  "/v1/chat/completions/batch": chatBatchRule,
  "/v1/completions": completionRule,
  "/v1/responses": responsesRule,
  "/v1/messages": messagesRule,
  "/v1/embeddings": embeddingsRule,
  "/v2/embed": cohereRule,
  "/score": scoreRule,
  "/rerank": rerankRule,
  "/generative_scoring": generativeScoringRule,
  "/inference/v1/generate": generateRule,
  "/tokenize": tokenizeRule,
  "/detokenize": detokenizeRule,
} = RELAY_RULES;

const FACTS: RelayFacts = {
  caps: DEFAULT_CAPS,
  salt: (own) => `tenant-salt${own === undefined ? "" : `+${own}`}`,
  priority: (asked = 0) => {
    if (asked < 0) throw invalid("priority", "too urgent");
    return asked;
  },
  requestId: "req-1",
  passed: new Set(),
};
const CHAT = { model: "m", messages: [{ role: "user", content: "hi" }] };

function judged(body: unknown, rule: Parameters<typeof judgeRelay>[0] = chatRule, facts = FACTS): RelayVerdict {
  return judgeRelay(rule, Buffer.from(typeof body === "string" ? body : JSON.stringify(body)), facts);
}

function passed(body: unknown, rule: Parameters<typeof judgeRelay>[0] = chatRule): Record<string, unknown> {
  const text = Buffer.concat(relayBody(judged(body, rule))).toString();
  return JSON.parse(text) as Record<string, unknown>;
}

function fault(body: unknown, rule: Parameters<typeof judgeRelay>[0] = chatRule, facts = FACTS): Fault {
  try {
    judged(body, rule, facts);
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    return error;
  }
  return assert.fail(`was taken: ${JSON.stringify(body).slice(0, 200)}`);
}

const OURS = { cache_salt: "tenant-salt", request_id: "req-1" };

test("what is not the server's stays as it came, byte for byte", () => {
  const text =
    '{ "messages": [ {"role":"user","content":"h\\u0069"} ], "model":"m" ,"stop":["a" , "b"],"max_tokens":5 }';
  const ours = '"cache_salt":"tenant-salt","request_id":"req-1",';
  assert.equal(Buffer.concat(relayBody(judged(text))).toString(), `{${ours}${text.slice(1)}`);
  // What is long is not copied.
  const long = Buffer.from(text.replace("h", "h".repeat(100_000)));
  const pieces = relayBody(judgeRelay(chatRule, long, FACTS));
  assert.deepEqual(pieces.map(String), ["{", ours, long.toString().slice(1)]);
  assert.equal(pieces[2]?.buffer, long.buffer);
  const verdict = judged(text);
  assert.deepEqual(
    [verdict.model, verdict.n, verdict.prompts, verdict.maxTokens, verdict.stream, verdict.strip],
    ["m", 1, 1, 5, false, false],
  );
});

const NEEDED: ReadonlyMap<RelayRule, object> = new Map<RelayRule, object>([
  [chatBatchRule, { messages: [CHAT.messages] }],
  [completionRule, { prompt: "x" }],
  [RELAY_RULES["/v1/completions/render"], { prompt: "x" }],
  [responsesRule, { input: "x" }],
  [cohereRule, { texts: ["x"] }],
  [scoreRule, { data_1: "x", data_2: "x" }],
  [rerankRule, { query: "x", documents: ["x"] }],
  [generativeScoringRule, { query: "x", items: ["x"], label_token_ids: [1] }],
  [generateRule, { token_ids: [1] }],
  [detokenizeRule, { tokens: [1] }],
]);

test("what no rule knows is taken out, but for what the operator has named", () => {
  const text =
    '{"extra_body":{"kv_transfer_params":{"a":1}},"model":"m","new_input":"http://x/" , "messages":[{}],"\\u006eew_input2":[1],"user":"u"}';
  const bytes = (named: readonly string[]): string =>
    Buffer.concat(relayBody(judged(text, chatRule, { ...FACTS, passed: new Set(named) }))).toString();
  const ours = '{"cache_salt":"tenant-salt","request_id":"req-1",';
  assert.equal(bytes([]), `${ours}"model":"m" , "messages":[{}],"user":"u"}`);
  assert.equal(bytes(["new_input2"]), `${ours}"model":"m" , "messages":[{}],"\\u006eew_input2":[1],"user":"u"}`);
  const hidden = { not_known: 1, tokenizer: "/etc", lora_path: "/" };
  for (const [path, rule] of Object.entries(RELAY_RULES)) {
    const body = { model: "m", max_tokens: 1, ...(NEEDED.get(rule) ?? { messages: CHAT.messages }) };
    const sent = passed({ ...body, ...hidden }, rule);
    for (const name of Object.keys(hidden)) assert.ok(!(name in sent), `${path} ${name}`);
    for (const name of Object.keys(body)) assert.equal(name in sent, rule.fields.has(name) || rule.big.has(name), name);
  }
  // A number or a switch names nothing; anything else in its place might.
  assert.equal(passed({ ...CHAT, routed_experts_prompt_start: 4 })["routed_experts_prompt_start"], 4);
  assert.equal(passed({ ...CHAT, routed_experts_prompt_start: "x" })["routed_experts_prompt_start"], undefined);
});

test("of stream_options only what is known goes on", () => {
  const options = (given: object, stream = true) =>
    passed({ ...CHAT, stream, stream_options: given })["stream_options"];
  assert.deepEqual(options({ include_usage: true, other: "x" }), { include_usage: true });
  assert.deepEqual(options({ other: "x" }), { include_usage: true, continuous_usage_stats: false });
});

test("no setting lets pass what a client may not say", () => {
  assert.equal(neverPassed(new Set(["a", "b"])), undefined);
  for (const name of ["kv_transfer_params", "mm_hashes", "vllm_xargs", "cache_salt", "chat_template"])
    assert.equal(neverPassed(new Set(["a", name])), name);
});

test("salt, priority and id are the server's, whatever the client wrote and however", () => {
  assert.deepEqual(passed({ ...CHAT, request_id: "theirs", cache_salt: "own" }), {
    ...CHAT,
    ...OURS,
    cache_salt: "tenant-salt+own",
  });
  assert.deepEqual(passed('{"model":"m","messages":[{}],"\\u0063ache_salt":"x","request\\u005fid":"y","priority":3}'), {
    model: "m",
    messages: [{}],
    cache_salt: "tenant-salt+x",
    request_id: "req-1",
    priority: 3,
  });
  assert.equal(fault({ ...CHAT, priority: -1 }).param, "priority");
  assert.equal(fault({ ...CHAT, cache_salt: "a/b" }).param, "cache_salt");
  assert.equal(fault('{"model":"m","messages":[{}],"model":"n"}').kind, "invalid_json");
  assert.equal(fault('{"model":"m","messages":[{}],"\\u006dodel":"n"}').param, "model");
  assert.deepEqual(passed({ prompt: "x", cache_salt: "a", priority: 1, request_id: "q" }, tokenizeRule), {
    prompt: "x",
  });
});

test("refused by name, with the texts of the routes that answer here; empty ones are taken out", () => {
  for (const [field, value] of [
    ["kv_transfer_params", { do_remote_decode: true }],
    ["ec_transfer_params", { a: 1 }],
    ["logits_processors", ["os.system"]],
    ["mm_processor_kwargs", { num_crops: 4 }],
    ["media_io_kwargs", { video: {} }],
  ] as const) {
    for (const rule of [chatRule, messagesRule, embeddingsRule, generateRule, tokenizeRule]) {
      const body = {
        model: "m",
        max_tokens: 1,
        messages: [{ role: "user", content: "x" }],
        ...(rule === generateRule ? { token_ids: [1] } : {}),
      };
      assert.equal(fault({ ...body, [field]: value }, rule).param, field);
    }
    assert.equal(fault({ ...CHAT, [field]: value }).message, `${field} is not accepted from clients.`);
    assert.deepEqual(passed({ ...CHAT, [field]: Array.isArray(value) ? [] : {} }), { ...CHAT, ...OURS });
  }
  assert.equal(
    fault({ ...CHAT, chat_template: "{{ x }}" }).message,
    "chat_template is not accepted in a request: templates come from the model.",
  );
  assert.equal(fault({ prompt_embeds: "AAAA", prompt: "x" }, completionRule).param, "prompt_embeds");
  assert.equal(
    fault({ ...CHAT, chat_template_kwargs: { chat_template: "x" } }).param,
    "chat_template_kwargs.chat_template",
  );
  assert.equal(fault({ ...CHAT, guided_json: {} }).param, "guided_json");
  assert.equal(fault({ ...CHAT, multi_modal_uuids: { image: ["a"] } }).param, "multi_modal_uuids");
  // It would carry kv_transfer_params past the check above.
  assert.deepEqual(passed({ ...CHAT, vllm_xargs: { kv_transfer_params: { a: 1 } } }), { ...CHAT, ...OURS });
});

test("the caps of the routes that answer here", () => {
  const caps = {
    ...DEFAULT_CAPS,
    contentParts: 3,
    messages: 5,
    toolCharacters: 400,
    poolingInputs: 4,
    completionPrompts: 3,
  };
  const facts = { ...FACTS, caps };
  const many = (count: number, entry: unknown) => Array.from({ length: count }, () => entry);
  const tool = { type: "function", function: { name: "f", parameters: {} } };
  const deep = JSON.parse("[".repeat(40) + "]".repeat(40)) as unknown;
  for (const [body, param, rule = chatRule] of [
    [{ ...CHAT, n: 17 }, "n"],
    [{ ...CHAT, n: "2" }, "n"],
    [{ ...CHAT, max_tokens: 0 }, "max_tokens"],
    [{ ...CHAT, stop: many(5, "a") }, "stop"],
    [{ ...CHAT, stop: "a".repeat(2000) }, "stop"],
    [{ ...CHAT, logprobs: true, top_logprobs: 21 }, "top_logprobs"],
    [{ ...CHAT, logit_bias: Object.fromEntries(many(1025, 0).map((_, i) => [i, 1])) }, "logit_bias"],
    [{ ...CHAT, bad_words: many(129, "a") }, "bad_words"],
    [{ ...CHAT, tools: many(129, {}) }, "tools"],
    [{ ...CHAT, tools: many(10, tool) }, "tools"],
    [{ ...CHAT, tools: [deep] }, "tools"],
    [{ ...CHAT, temperature: 3 }, "temperature"],
    [
      { ...CHAT, response_format: { type: "json_schema", json_schema: { schema: 1 } } },
      "response_format.json_schema.schema",
    ],
    [{ ...CHAT, messages: many(6, {}) }, "messages"],
    [{ ...CHAT, messages: [{ role: "user", content: many(4, {}) }] }, "messages"],
    [{ ...CHAT, messages: [] }, "messages"],
    [{ ...CHAT, messages: "x" }, "messages"],
    [{ model: "m" }, "messages"],
    [{ prompt: many(4, "a") }, "prompt", completionRule],
    [{ prompt: [] }, "prompt", completionRule],
    [{ prompt: "" }, "prompt", completionRule],
    [{ prompt: "x", n: 16, max_tokens: -1 }, "max_tokens", completionRule],
    [{ input: many(5, "a") }, "input", embeddingsRule],
    [{ texts: many(5, "a") }, "texts", cohereRule],
    [{ query: "q", documents: many(5, "a") }, "documents", rerankRule],
    [{ text_1: "q", text_2: many(5, "a") }, "text_2", scoreRule],
    [{ model: "m", max_tokens: 5, messages: many(6, {}) }, "messages", messagesRule],
    [{ model: "m", messages: [{}] }, "max_tokens", messagesRule],
    [{ input: many(6, {}) }, "input", responsesRule],
    [{ input: "x", instructions: ["a"] }, "instructions", responsesRule],
    [{ input: "x", max_output_tokens: 0 }, "max_output_tokens", responsesRule],
    [{ token_ids: [1], sampling_params: { n: 17 } }, "sampling_params.n", generateRule],
    [{ token_ids: [1], sampling_params: { extra_args: { a: 1 } } }, "sampling_params.extra_args", generateRule],
    [{ token_ids: [1], features: { mm_hashes: {} } }, "features", generateRule],
    [{ tokens: "x" }, "tokens", detokenizeRule],
    [{ query: "q", items: many(5, "a"), label_token_ids: [1] }, "items", generativeScoringRule],
  ] as readonly (readonly [unknown, string, RelayRule?])[])
    assert.equal(fault(body, rule, facts).param, param, JSON.stringify(body).slice(0, 100));
});

test("engine parameters of generate: what is not known is not passed on", () => {
  const body = { token_ids: [1, 2, 3], sampling_params: { max_tokens: 4, output_kind: 1, _private: true } };
  const verdict = judged(body, generateRule);
  assert.deepEqual([verdict.promptIds, verdict.promptBytes, verdict.maxTokens], [3, 0, 4]);
  assert.deepEqual(passed(body, generateRule)["sampling_params"], { max_tokens: 4 });
});

test("usage is asked for in every stream, and left out again where the client did not ask", () => {
  const silent = judged({ ...CHAT, stream: true });
  assert.equal(silent.strip, true);
  assert.deepEqual(passed({ ...CHAT, stream: true })["stream_options"], {
    include_usage: true,
    continuous_usage_stats: false,
  });
  const asking = { ...CHAT, stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } };
  assert.equal(judged(asking).strip, false);
  assert.deepEqual(passed(asking)["stream_options"], asking.stream_options);
  assert.equal(judged({ ...CHAT, stream: false }).strip, false);
  assert.equal(judged({ input: "x", stream: true }, responsesRule).strip, false);
  assert.equal(fault({ ...CHAT, stream_options: { include_usage: true } }).param, "stream_options");
});

test("sizes: token ids to the number, texts by their bytes", () => {
  assert.deepEqual(
    [
      judged({ prompt: [[1, 2], [3]] }, completionRule),
      judged({ prompt: ["ab", "c"] }, completionRule),
      judged({ input: [1, 2] }, embeddingsRule),
    ].map(({ promptIds, promptBytes, prompts }) => [promptIds, promptBytes, prompts]),
    [
      [3, 0, 2],
      [0, 10, 2],
      [2, 0, 1],
    ],
  );
});

test("media: URLs are told of with their places, data: too, uuids go, files are refused", () => {
  const part = {
    type: "image_url",
    image_url: { url: "https://e\u00e9.example/a.png", detail: "low" },
    uuid: "theirs",
  };
  const data = { type: "image_url", image_url: "data:image/png;base64,AAAA" };
  const audio = { type: "input_audio", input_audio: { data: "AAAA", format: "wav", uuid: "u" } };
  const body = {
    ...CHAT,
    messages: [
      { role: "user", content: "uuid" },
      { role: "user", content: [{ type: "text", text: "x" }, part, data, audio, { video_url: "http://v/" }] },
    ],
  };
  const verdict = judged(body);
  assert.deepEqual(
    verdict.media.map(({ kind, url, param }) => [kind, url, param]),
    [
      ["image", "https://e\u00e9.example/a.png", "messages.1.content.1.image_url.url"],
      ["image", data.image_url, "messages.1.content.2.image_url"],
      ["audio", "data:audio/wav;base64,AAAA", "messages.1.content.3.input_audio.data"],
      ["video", "http://v/", "messages.1.content.4.video_url"],
    ],
  );
  assert.throws(() => relayBody(verdict), RangeError);
  const sent = JSON.parse(
    Buffer.concat(
      relayBody(verdict, {
        media: ["data:a", data.image_url, "data:audio/wav;base64,AAAA", "data:b"],
        model: "up",
      }),
    ).toString(),
  );
  assert.deepEqual(sent, {
    ...OURS,
    model: "up",
    messages: [
      body.messages[0],
      {
        role: "user",
        content: [
          { type: "text", text: "x" },
          { ...part, uuid: null, image_url: { url: "data:a", detail: "low" } },
          data,
          { ...audio, input_audio: { ...audio.input_audio, uuid: null } },
          { video_url: "data:b" },
        ],
      },
    ],
  });
  const one = (content: unknown) => ({ ...CHAT, messages: [{ role: "user", content: [content] }] });
  for (const url of [
    " file:///x",
    "f\tile:/x",
    "ftp://x",
    "/etc/passwd",
    "",
    "javascript:x",
    "\u0000file:/x",
    "data",
    " data:x",
  ])
    assert.equal(
      fault(one({ type: "image_url", image_url: { url } })).param,
      "messages.0.content.0.image_url.url",
      JSON.stringify(url),
    );
  for (const url of ["file:///etc/passwd", "FILE:/x"])
    assert.deepEqual(
      judged(one({ type: "image_url", image_url: { url } })).media.map((media) => media.url),
      [url],
      "a file is read here or nowhere",
    );
  assert.equal(fault(one({ image_url: { url: 5 } })).param, "messages.0.content.0.image_url.url");
  for (const name of ["image_embeds", "audio_embeds", "prompt_embeds", "image_pil"])
    assert.equal(fault(one({ type: name, [name]: "AAAA" })).param, `messages.0.content.0.${name}`);
  assert.equal(fault('{"messages":[{"content":[{"uuid":1,"uu\\u0069d":2}]}]}').kind, "invalid_json");
  assert.equal(fault('{"messages":[{"content":[{"image_url":"data:","image_url":"http://x"}]}]}').kind, "invalid_json");
  assert.equal(
    fault('{"messages":[{"content":[{"image_url":{"url":"data:","url":"http://x"}}]}]}').kind,
    "invalid_json",
  );
});

test("a part of a kind that nobody here knows is refused, wherever it stands and however it is spelled", () => {
  const messages = (content: unknown) => ({ model: "m", max_tokens: 1, messages: [{ role: "user", content }] });
  const odd = { type: "document_url", document_url: { url: "http://169.254.169.254/" } };
  const text = { type: "text", text: "x" };
  const at = "messages.0.content.1.type";
  assert.equal(fault(messages([text, odd])).param, at);
  assert.equal(fault(messages([text, { ...odd, type: 5 }])).param, at);
  assert.equal(fault(messages([text, odd]), embeddingsRule).param, at);
  assert.equal(fault(messages([text, odd]), messagesRule).param, at);
  assert.equal(fault({ ...messages("x"), system: [odd] }, messagesRule).param, "system.0.type");
  const result = { type: "tool_result", tool_use_id: "a", content: [odd] };
  assert.equal(fault(messages([result]), messagesRule).param, "messages.0.content.0.content.0.type");
  assert.equal(
    fault({ messages: [[{ role: "user", content: [odd] }]] }, chatBatchRule).param,
    "messages.0.0.content.0.type",
  );
  assert.equal(fault({ input: [{ role: "user", content: [odd] }] }, responsesRule).param, "input.0.content.0.type");
  const output = { type: "computer_call_output", output: { type: "computer_screenshot", image_url: "http://x" } };
  assert.equal(fault({ input: [output] }, responsesRule).param, "input.0.output.type");
  assert.equal(fault({ query: "q", documents: [{ content: [odd] }] }, rerankRule).param, "documents.0.content.0.type");
  assert.equal(fault({ query: odd, documents: ["d"] }, rerankRule).param, "query.type");
  for (const key of ['"\\u0074ype"', '"typ\\u0065" ', '"type"\n\t '])
    assert.equal(
      fault(`{"messages":[{"content":[{"type":"text","text":"\\"type\\":1"},{${key}:"video","video":"http://x"}]}]}`)
        .param,
      at,
      key,
    );
  assert.equal(fault('{"messages":[{"content":[{"type":"text","type":"video"}]}]}').kind, "invalid_json");
});

test("kinds elsewhere are nobody's, and what is known goes on", () => {
  const call = { id: "a", type: "function", function: { name: "f", arguments: '{"type":"video"}' } };
  for (const message of [
    { role: "user", content: "x", type: "odd" },
    { role: "user", content: [{ type: "text", text: '{"type":"video"} \u00e9' }] },
    { role: "user", content: ["type", { type: "text", text: "type" }] },
    { role: "assistant", content: null, tool_calls: [call] },
    { role: "tool", tool_call_id: "a", content: [{ type: "text", text: "x", cache_control: { type: "odd" } }] },
  ]) {
    assert.deepEqual(passed({ model: "m", messages: [message] })["messages"], [message]);
    // As Python's json writes it.
    const ascii = JSON.stringify({ messages: [message] }).replaceAll("é", "\\u00e9");
    assert.deepEqual(passed(ascii)["messages"], [message]);
  }
  const blocks = [
    { type: "text", text: "x", cache_control: { type: "odd" } },
    { type: "tool_use", id: "a", name: "f", input: { type: "odd", content: [{ type: "odd" }] } },
  ];
  const messages = [{ role: "assistant", content: blocks }];
  assert.deepEqual(passed({ model: "m", max_tokens: 1, messages }, messagesRule)["messages"], messages);
});

test("media in base64 beside its type is told of as the URL it amounts to, and stands there bare again", () => {
  const image = (source: unknown, type = "image") => ({
    model: "m",
    max_tokens: 1,
    messages: [{ role: "user", content: [{ source, type }] }],
  });
  const source = { media_type: "image/png", data: "AAAA", type: "base64" };
  const told = (body: unknown) => judged(body, messagesRule).media.map(({ url }) => url);
  assert.deepEqual(told(image(source)), ["data:image/png;base64,AAAA"]);
  assert.deepEqual(told(image({ ...source, media_type: null })), ["data:;base64,AAAA"]);
  // Of a block without its own word, too; not of a document, whatever its bytes are said to be, nor of text.
  assert.deepEqual(told({ ...image(source), messages: [{ role: "user", content: [{ source }] }] }), [
    "data:image/png;base64,AAAA",
  ]);
  assert.deepEqual(told(image(source, "document")), []);
  assert.deepEqual(told(image({ type: "text", media_type: "text/plain", data: "AAAA" }, "document")), []);
  assert.throws(() => told(image({ ...source, data: 5 })), /data must be a string/);
  const verdict = judged(image(source), messagesRule);
  const media = ["data:image/png;base64,QkJC"];
  const sent = JSON.parse(Buffer.concat(relayBody(verdict, { media })).toString()) as ReturnType<typeof image>;
  assert.deepEqual(sent.messages, image({ ...source, data: "QkJC" }).messages);
  const speech = (format: unknown) => ({
    ...CHAT,
    messages: [{ role: "user", content: [{ type: "input_audio", input_audio: { data: "AAAA", format } }] }],
  });
  for (const [format, url] of [
    ["mp3", "data:audio/mp3;base64,AAAA"],
    ["opus", "data:;base64,AAAA"],
    [7, "data:;base64,AAAA"],
  ] as const)
    assert.deepEqual(
      judged(speech(format)).media.map(({ kind, url }) => [kind, url]),
      [["audio", url]],
    );
});

test("media of the other dialects; names in tools and their arguments are nobody's", () => {
  const source = { type: "url", url: "https://e/a.png" };
  const anthropic = {
    model: "m",
    max_tokens: 5,
    system: [{ type: "text", text: "x" }],
    messages: [
      {
        role: "user",
        content: [
          { type: "image", source },
          { type: "tool_result", content: [{ type: "image", source }] },
          { type: "image", source: { type: "base64", data: "AA" } },
        ],
      },
      {
        role: "assistant",
        content: [
          {
            type: "tool_use",
            id: "a",
            name: "f",
            input: { source: { url: "file:/x" }, uuid: "1", image_url: "http://x" },
          },
        ],
      },
    ],
    tools: [
      {
        name: "f",
        input_schema: { type: "object", properties: { uuid: { type: "string" }, image_url: { url: "file:/x" } } },
      },
    ],
  };
  const verdict = judged(anthropic, messagesRule);
  assert.deepEqual(
    verdict.media.map(({ param }) => param),
    [
      "messages.0.content.0.source.url",
      "messages.0.content.1.content.0.source.url",
      "messages.0.content.2.source.data",
    ],
  );
  assert.deepEqual(verdict.cuts, []);
  const responses = {
    input: [
      {
        role: "user",
        content: [
          { type: "input_image", image_url: "https://e/b.png" },
          { type: "input_file", file_url: "https://e/c.pdf" },
        ],
      },
      { type: "function_call_output", output: [{ type: "input_image", image_url: "https://e/d.png" }] },
    ],
  };
  assert.deepEqual(
    judged(responses, responsesRule).media.map(({ url, kind }) => [url, kind]),
    [
      ["https://e/b.png", "image"],
      ["https://e/c.pdf", "file"],
      ["https://e/d.png", "image"],
    ],
  );
  const score = {
    queries: { content: [{ type: "image_url", image_url: { url: "http://q" } }] },
    documents: ["a", { content: [{ image_url: "http://d", uuid: 1 }] }],
  };
  const scored = judged(score, scoreRule);
  assert.deepEqual([scored.media.map(({ url }) => url), scored.cuts.length], [["http://q", "http://d"], 1]);
  assert.deepEqual(
    judged({ images: ["http://a", "data:x"] }, cohereRule).media.map(({ param }) => param),
    ["images.0", "images.1"],
  );
  assert.equal(
    judged({ messages: [[{ content: [{ image_url: "http://a" }] }]] }, chatBatchRule).media[0]?.param,
    "messages.0.0.content.0.image_url",
  );
});

test("responses: what would be kept is told, and nothing is kept upstream", () => {
  const body = { input: "x", store: false, background: true, previous_response_id: "resp_1" };
  assert.deepEqual(judged(body, responsesRule).kept, { store: false, background: true, previousId: "resp_1" });
  assert.deepEqual(passed(body, responsesRule), { ...OURS, ...body, background: false });
  assert.deepEqual(passed({ input: "x" }, responsesRule), { ...OURS, input: "x", store: false, background: false });
});

test("a completion of two prompts, an embedding of one, and a chat that says what is refused", () => {
  assert.equal(judged({ prompt: ["a", "b"] }, completionRule).prompts, 2);
  assert.equal(fault({ ...CHAT, kv_transfer_params: { a: 1 } }).param, "kv_transfer_params");
  assert.equal(judged({ input: ["a"] }, embeddingsRule).prompts, 1);
});

test("bodies that are no objects, and hostile ones", () => {
  for (const body of [
    "",
    "[]",
    "1",
    "null",
    '"x"',
    "{",
    '{"a":NaN}',
    `\ufeff{}`,
    `${"[".repeat(1_000_000)}`,
    `{"messages":${'{"a":'.repeat(1_000_000)}`,
    `{${Array.from({ length: 1_000_000 }, (_, i) => `"${i}":1`).join()}}`,
    '{"__proto__":{}}',
    '{"messages":[{"content":"\\ud800"}]}',
    `{"max_tokens":1${"0".repeat(400)},"messages":[{}]}`,
  ])
    assert.match(fault(body).kind, /^invalid_/, body.slice(0, 40));
  assert.equal(fault({ ...CHAT, max_tokens: 1e300 }).kind, "invalid_request");
});

test("whatever stands beside: what is passed on is the body with the server's fields in it", () => {
  const extra = fc.dictionary(
    fc.constantFrom("cache_salt", "request_id", "user", "x", "y", "vllm_xargs", "seed"),
    fc.constantFrom("a", "b"),
    { maxKeys: 5 },
  );
  fc.assert(
    fc.property(extra, fc.boolean(), fc.constantFrom(0, 2), (fields, stream, indent) => {
      const { seed: _, ...more } = fields;
      const body = { ...more, ...CHAT, stream };
      const sent = JSON.parse(Buffer.concat(relayBody(judged(JSON.stringify(body, null, indent)))).toString());
      const {
        vllm_xargs: __,
        x: ___,
        y: ____,
        ...expected
      } = {
        ...body,
        ...OURS,
        ...("cache_salt" in fields ? { cache_salt: `tenant-salt+${fields["cache_salt"]}` } : {}),
      } as Record<string, unknown>;
      assert.deepEqual(
        sent,
        stream ? { ...expected, stream_options: { include_usage: true, continuous_usage_stats: false } } : expected,
      );
    }),
  );
});
