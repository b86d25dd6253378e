import assert from "node:assert/strict";
import { test } from "node:test";
import { Fault, type FaultKind } from "#core/fault.ts";
import { DEFAULT_CAPS } from "#core/request-caps.ts";
import { decodeChat } from "./chat-decode.ts";
import { ChatBody } from "./chat-schema.ts";

const hello = [{ role: "user", content: "hi" }];
const tool = { type: "function", function: { name: "f", parameters: { type: "object" } } };

function decode(body: Record<string, unknown>, caps = DEFAULT_CAPS) {
  return decodeChat(ChatBody.parse({ messages: hello, ...body }), caps);
}

/** Formats inside formats. */
function nested(depth: number): object {
  return depth === 0 ? { type: "any_text" } : { type: "star", content: nested(depth - 1) };
}

/** Where a body fails: by the schema, or by decode. */
function refusal(body: Record<string, unknown>): { kind: FaultKind; param: string | undefined } {
  const parsed = ChatBody.safeParse({ messages: hello, ...body });
  if (!parsed.success) return { kind: "invalid_request", param: parsed.error.issues[0]?.path.join(".") };
  try {
    decodeChat(parsed.data, DEFAULT_CAPS);
  } catch (error) {
    if (error instanceof Fault) return { kind: error.kind, param: error.param };
    throw error;
  }
  throw new assert.AssertionError({ message: `nothing refused ${JSON.stringify(body).slice(0, 200)}` });
}

test("says nothing: vLLM's defaults", () => {
  const { call, print } = decode({});
  assert.deepEqual(call.sampling, {});
  assert.deepEqual(call.output, {
    n: 1,
    stop: [],
    includeStopString: false,
    skipSpecialTokens: true,
    returnTokenIds: false,
    stream: false,
  });
  assert.deepEqual(call.template, {
    addGenerationPrompt: true,
    continueFinalMessage: false,
    addSpecialTokens: false,
    kwargs: {},
  });
  assert.equal(call.toolChoice, "none");
  assert.equal(call.parallelToolCalls, true);
  assert.equal(call.includeReasoning, true);
  assert.equal(print.role, "assistant");
});

test("null stands wherever vLLM's type is Optional", () => {
  const optional = [
    "model",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "response_format",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "reasoning_effort",
    "thinking_token_budget",
    "parallel_tool_calls",
    "user",
    "top_k",
    "min_p",
    "repetition_penalty",
    "stop_token_ids",
    "truncate_prompt_tokens",
    "truncation_side",
    "prompt_logprobs",
    "logprob_token_ids",
    "allowed_token_ids",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "structured_outputs",
    "session_id",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "return_prompt_text",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "repetition_detection",
    "stream_interval",
    "guided_json",
  ];
  const body = Object.fromEntries(optional.map((name) => [name, null]));
  assert.deepEqual(decode(body), decode({}));
});

test("unknown fields are ignored", () => {
  assert.deepEqual(decode({ store: true, metadata: { a: 1 }, best_of: 1 }), decode({}));
});

test("every sampling field arrives", () => {
  const { call } = decode({
    temperature: 0.001,
    top_k: -1,
    top_p: 0.5,
    min_p: 0.1,
    presence_penalty: 1,
    frequency_penalty: -1,
    repetition_penalty: 1.1,
    logit_bias: { 5: 300, 6: -1 },
    seed: 7,
    max_tokens: 9,
    max_completion_tokens: 8,
    min_tokens: 2,
    stop_token_ids: [1, 2],
    ignore_eos: true,
    allowed_token_ids: [3],
    bad_words: ["no"],
  });
  assert.deepEqual(call.sampling, {
    temperature: 0.01,
    topK: 0,
    topP: 0.5,
    minP: 0.1,
    presencePenalty: 1,
    frequencyPenalty: -1,
    repetitionPenalty: 1.1,
    logitBias: [
      [5, 100],
      [6, -1],
    ],
    seed: 7,
    maxTokens: 8,
    minTokens: 2,
    stopTokenIds: [1, 2],
    ignoreEos: true,
    allowedTokenIds: [3],
    badWords: ["no"],
  });
});

test("seeds: -1 is none, and int64 beyond 2^53 still draws", () => {
  assert.equal(decode({ seed: -1 }).call.sampling.seed, undefined);
  const seed = decode({ seed: 2 ** 62 + 2 ** 12 }).call.sampling.seed;
  assert.ok(Number.isSafeInteger(seed));
});

test("logprobs: the number is top_logprobs, 0 alone is the drawn token", () => {
  assert.equal(decode({ logprobs: true }).call.output.logprobs, 0);
  assert.equal(decode({ logprobs: true, top_logprobs: 3 }).call.output.logprobs, 3);
  assert.equal(
    decode({ logprobs: true, top_logprobs: -1 }, { ...DEFAULT_CAPS, logprobs: -1 }).call.output.logprobs,
    -1,
  );
  assert.equal(decode({ top_logprobs: 0 }).call.output.logprobs, undefined);
});

test("messages: parts, names, reasoning under both names, tool calls", () => {
  const { call } = decode({
    messages: [
      { role: "user", name: "ann", content: [{ type: "text", text: "a" }, "b", { type: "refusal", refusal: "c" }] },
      {
        role: "assistant",
        reasoning_content: "hm",
        tool_calls: [{ id: "t1", type: "function", function: { name: "f", arguments: '{"a":1}' } }],
      },
      { role: "tool", tool_call_id: "t1", content: "42" },
    ],
  });
  assert.deepEqual(call.messages, [
    {
      role: "user",
      name: "ann",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "b" },
        { type: "text", text: "c" },
      ],
    },
    { role: "assistant", content: null, reasoning: "hm", toolCalls: [{ id: "t1", name: "f", arguments: '{"a":1}' }] },
    { role: "tool", content: "42", toolCallId: "t1" },
  ]);
});

test("tools make tool_choice auto; raw stays as it was sent", () => {
  const { call } = decode({ tools: [{ ...tool, extra: 1 }] });
  assert.equal(call.toolChoice, "auto");
  assert.deepEqual(call.tools, [{ name: "f", parameters: { type: "object" }, raw: { ...tool, extra: 1 } }]);
  assert.equal(decode({ tools: [tool], tool_choice: "none" }).call.toolChoice, "none");
});

test("continue_final_message opens no turn and speaks in the last message's role", () => {
  const { call, print } = decode({
    messages: [...hello, { role: "assistant", content: "Once" }],
    continue_final_message: true,
    echo: true,
  });
  assert.deepEqual([call.template.addGenerationPrompt, call.template.continueFinalMessage], [false, true]);
  assert.deepEqual([print.role, print.echoText], ["assistant", "Once"]);
});

test("reasoning_effort reaches the template and opens thinking unless the client says otherwise", () => {
  assert.deepEqual(decode({ reasoning_effort: "low" }).call.template.kwargs, {
    enable_thinking: true,
    reasoning_effort: "low",
  });
  assert.deepEqual(decode({ reasoning_effort: "none" }).call.template.kwargs, {
    enable_thinking: false,
    reasoning_effort: "none",
  });
  const own = decode({ reasoning_effort: "low", chat_template_kwargs: { enable_thinking: false } });
  assert.equal(own.call.template.kwargs.enable_thinking, false);
});

test("stream options", () => {
  const { print, call } = decode({
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  assert.deepEqual([print.includeUsage, print.continuousUsage, call.output.runningUsage], [true, true, true]);
  // Without a usage at the end vLLM sends none on the way.
  assert.equal(decode({ stream: true, stream_options: { continuous_usage_stats: true } }).print.continuousUsage, false);
});

const many = (count: number) => Array.from({ length: count }, (_, i) => i);
const REFUSED: readonly (readonly [body: Record<string, unknown>, param: string, kind?: FaultKind])[] = [
  [{ messages: undefined }, "messages"],
  [{ messages: [] }, "messages"],
  [{ messages: "hi" }, "messages"],
  [{ messages: many(10_001) }, "messages"],
  [{ messages: [null] }, "messages.0"],
  [{ messages: [{ content: "hi" }] }, "messages.0.role"],
  [{ messages: [{ role: "x".repeat(65), content: "" }] }, "messages.0.role"],
  [{ messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
  [{ messages: [{ role: "user", content: [{ type: "text" }] }] }, "messages.0.content.0.text"],
  [
    { messages: [{ role: "user", content: [{ type: "constructor" }] }] },
    "messages.0.content.0.type",
    "not_implemented",
  ],
  [
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
    "messages.0.content.0.type",
    "not_implemented",
  ],
  [
    { messages: [{ role: "assistant", tool_calls: [{ function: { name: 1 } }] }] },
    "messages.0.tool_calls.0.function.name",
  ],
  [{ model: 5 }, "model"],
  [{ temperature: 2.1 }, "temperature"],
  [{ temperature: -0.1 }, "temperature"],
  [{ temperature: Number.NaN }, "temperature"],
  [{ temperature: Number.POSITIVE_INFINITY }, "temperature"],
  [{ temperature: "1" }, "temperature"],
  [{ top_p: 0 }, "top_p"],
  [{ top_p: 1.1 }, "top_p"],
  [{ top_k: -2 }, "top_k"],
  [{ top_k: 1.5 }, "top_k"],
  [{ min_p: 1.1 }, "min_p"],
  [{ presence_penalty: 2.1 }, "presence_penalty"],
  [{ frequency_penalty: -2.1 }, "frequency_penalty"],
  [{ repetition_penalty: 0 }, "repetition_penalty"],
  [{ n: 0 }, "n"],
  [{ n: 129 }, "n"],
  [{ n: 2, temperature: 0 }, "n"],
  [{ n: 1.5 }, "n"],
  [{ seed: 1.5 }, "seed"],
  [{ seed: 1e30 }, "seed"],
  [{ max_tokens: 0 }, "max_tokens"],
  [{ max_tokens: 5, max_completion_tokens: -1 }, "max_completion_tokens"],
  [{ min_tokens: -1 }, "min_tokens"],
  [{ min_tokens: null }, "min_tokens"],
  [{ min_tokens: 6, max_tokens: 5 }, "min_tokens"],
  [{ stop: "" }, "stop"],
  [{ stop: ["a", ""] }, "stop.1"],
  [{ stop: many(10_000).map(String) }, "stop"],
  [{ stop: ["x".repeat(1025)] }, "stop.0"],
  [{ stop: { a: 1 } }, "stop"],
  [{ stop_token_ids: [1, -1] }, "stop_token_ids.1"],
  [{ stop_token_ids: [1.5] }, "stop_token_ids.0"],
  [{ stop_token_ids: many(1025) }, "stop_token_ids"],
  [{ allowed_token_ids: [] }, "allowed_token_ids"],
  [{ allowed_token_ids: ["a"] }, "allowed_token_ids.0"],
  [{ bad_words: [""] }, "bad_words.0"],
  [{ bad_words: many(129).map(String) }, "bad_words"],
  [{ logit_bias: { x: 1 } }, "logit_bias"],
  [{ logit_bias: { "-1": 1 } }, "logit_bias"],
  [{ logit_bias: { 1: "2" } }, "logit_bias.1"],
  [{ logit_bias: Object.fromEntries(many(1025).map((i) => [i, 0])) }, "logit_bias"],
  [{ logprobs: 5 }, "logprobs"],
  [{ top_logprobs: 2 }, "top_logprobs"],
  [{ logprobs: true, top_logprobs: 21 }, "top_logprobs"],
  [{ logprobs: true, top_logprobs: -1 }, "top_logprobs"],
  [{ prompt_logprobs: 21 }, "prompt_logprobs"],
  [{ prompt_logprobs: -2 }, "prompt_logprobs"],
  [{ prompt_logprobs: 1, stream: true }, "prompt_logprobs"],
  [{ stream_options: { include_usage: true } }, "stream_options"],
  [{ stream: "yes" }, "stream"],
  [{ tools: [] }, "tools"],
  [{ tools: [{ type: "function" }] }, "tools.0.function"],
  [{ tools: [{ type: "web", function: { name: "f" } }] }, "tools.0.type"],
  [{ tools: [{ type: "function", function: { name: "" } }] }, "tools.0.function.name"],
  [{ tools: [{ type: "function", function: { name: "f", parameters: [] } }] }, "tools.0.function.parameters"],
  [{ tools: many(129) }, "tools"],
  [{ tools: [{ type: "function", function: { name: "f", description: "x".repeat(600_000) } }] }, "tools"],
  [{ tool_choice: "auto" }, "tool_choice"],
  [{ tools: [tool], tool_choice: "any" }, "tool_choice"],
  [{ tools: [tool], tool_choice: "always" }, "tool_choice"],
  [{ tools: [tool], tool_choice: { type: "function", function: { name: "g" } } }, "tool_choice"],
  [{ add_generation_prompt: true, continue_final_message: true }, "continue_final_message"],
  [{ chat_template: "{{ 1 }}" }, "chat_template"],
  [{ chat_template_kwargs: { tokenize: true } }, "chat_template_kwargs.tokenize"],
  [{ chat_template_kwargs: { chat_template: "" } }, "chat_template_kwargs.chat_template"],
  [{ chat_template_kwargs: [] }, "chat_template_kwargs"],
  [{ documents: ["a"] }, "documents.0"],
  [{ reasoning_effort: "huge" }, "reasoning_effort"],
  [{ cache_salt: "" }, "cache_salt"],
  [{ cache_salt: "a/b" }, "cache_salt"],
  [{ cache_salt: "x".repeat(129) }, "cache_salt"],
  [{ truncate_prompt_tokens: -2 }, "truncate_prompt_tokens"],
  [{ truncation_side: "middle" }, "truncation_side"],
  [{ kv_transfer_params: { host: "x" } }, "kv_transfer_params"],
  [{ ec_transfer_params: { host: "x" } }, "ec_transfer_params"],
  [{ mm_processor_kwargs: { code_revision: "x" } }, "mm_processor_kwargs"],
  [{ media_io_kwargs: { video: {} } }, "media_io_kwargs"],
  [{ logits_processors: ["os.system"] }, "logits_processors"],
  [{ use_beam_search: true, stream: true }, "stream"],
  [{ use_beam_search: true, logprobs: true, logprob_token_ids: [1] }, "logprob_token_ids"],
  [{ use_beam_search: true, stop: "a" }, "stop"],
  [{ use_beam_search: true, min_tokens: 3 }, "min_tokens"],
  [{ use_beam_search: true, repetition_penalty: 1.1 }, "repetition_penalty"],
  [{ use_beam_search: true, logit_bias: { 5: 1 } }, "logit_bias"],
  [{ use_beam_search: true, thinking_token_budget: 3 }, "thinking_token_budget"],
  [{ use_beam_search: true, response_format: { type: "json_object" } }, "response_format"],
  [{ use_beam_search: true, structured_outputs: { regex: "a" } }, "structured_outputs"],
  [{ use_beam_search: true, tools: [tool], tool_choice: "required" }, "tool_choice"],
  [{ use_beam_search: true, length_penalty: 51 }, "length_penalty"],
  [{ use_beam_search: true, n: 129 }, "n"],
  [{ structured_outputs: { json: {}, regex: "a" } }, "structured_outputs"],
  [{ structured_outputs: { structural_tag: "{}" } }, "structured_outputs.structural_tag.format"],
  [{ structured_outputs: { structural_tag: "{" } }, "structured_outputs.structural_tag"],
  [{ structured_outputs: { structural_tag: 5 } }, "structured_outputs.structural_tag"],
  ...(
    [
      [{ format: { type: "token", token: 5 } }, "format.type"],
      [{ format: { type: "toString" } }, "format.type"],
      [{ format: { type: "any_text", max_tokens: 5 } }, "format.max_tokens"],
      [{ format: { type: "any_text", excludes: [""] } }, "format.excludes.0"],
      [{ format: { type: "json_schema", json_schema: {}, style: "qwen_xml" } }, "format.style"],
      [{ format: { type: "json_schema", json_schema: {}, any_order: true } }, "format.any_order"],
      [{ format: { type: "json_schema", json_schema: "{}" } }, "format.json_schema"],
      [{ format: { type: "sequence", elements: [] } }, "format.elements"],
      [{ format: { type: "or", elements: [{ type: "regex" }] } }, "format.elements.0.pattern"],
      [{ format: { type: "repeat", content: { type: "any_text" }, min: 2, max: 1 } }, "format.max"],
      [{ format: { type: "repeat", content: { type: "any_text" }, min: -1, max: 1 } }, "format.min"],
      [
        { format: { type: "tag", begin: { type: "token", token: 5 }, content: { type: "any_text" }, end: "b" } },
        "format.begin",
      ],
      [{ format: { type: "tag", begin: "a", content: { type: "any_text" }, end: [] } }, "format.end"],
      [{ format: { type: "triggered_tags", triggers: "a", tags: [] } }, "format.triggers"],
      [{ format: { type: "triggered_tags", triggers: ["a"], tags: [{ type: "or" }] } }, "format.tags.0.type"],
      [{ format: { type: "any_text" }, tokens: 5 }, "tokens"],
      [{ structures: [{ begin: "a", schema: {}, end: 5 }], triggers: ["a"] }, "structures.0.end"],
      [{ structures: [{ begin: "a", schema: {}, end: "b" }] }, "triggers"],
      [{ structures: [{ begin: "a", schema: {}, end: "b", format: {} }], triggers: ["a"] }, "structures.0.format"],
      [{ format: nested(40) }, `format${".content".repeat(33)}`],
    ] as const
  ).map(
    ([tag, field]) => [{ response_format: { type: "structural_tag", ...tag } }, `response_format.${field}`] as const,
  ),
  [{ response_format: { type: "json_schema" } }, "response_format.json_schema"],
  [{ response_format: { type: "xml" } }, "response_format.type"],
  [{ response_format: "text" }, "response_format"],
  [{ repetition_detection: { max_pattern_size: 4 } }, "repetition_detection.min_count"],
  [
    { repetition_detection: { max_pattern_size: 4, min_pattern_size: 5, min_count: 2 } },
    "repetition_detection.min_pattern_size",
  ],
  [{ repetition_detection: { max_pattern_size: 1e6, min_count: 2 } }, "repetition_detection.max_pattern_size"],
  [{ repetition_detection: [] }, "repetition_detection"],
  [{ logprob_token_ids: [1] }, "logprob_token_ids"],
  [{ logprobs: true, logprob_token_ids: [] }, "logprob_token_ids"],
  [{ logprobs: true, logprob_token_ids: [1, -1] }, "logprob_token_ids.1"],
  [{ logprobs: true, logprob_token_ids: Array.from({ length: 129 }, (_, id) => id) }, "logprob_token_ids"],
  [{ thinking_token_budget: -2 }, "thinking_token_budget"],
  [{ thinking_token_budget: 1.5 }, "thinking_token_budget"],
  [{ watermarking: true }, "watermarking", "not_implemented"],
  ...[
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding_backend",
    "guided_whitespace_pattern",
    "structural_tag",
  ].map((field) => [{ [field]: "x" }, field] as const),
];

for (const [body, param, kind] of REFUSED) {
  test(`refuses ${JSON.stringify(body).slice(0, 80)} by ${param}`, () => {
    assert.deepEqual(refusal(body), { kind: kind ?? "invalid_request", param });
  });
}

test("beam search: the width is n, also at temperature 0, and what asks for nothing is taken", () => {
  const nothing = {
    stop: [],
    min_tokens: 0,
    presence_penalty: 0,
    repetition_penalty: 1,
    logit_bias: {},
    bad_words: [],
  };
  const { call } = decode({
    ...nothing,
    use_beam_search: true,
    n: 4,
    temperature: 0,
    response_format: { type: "text" },
  });
  assert.deepEqual([call.output.n, call.output.beam], [4, { lengthPenalty: 1 }]);
  assert.equal(decode({ use_beam_search: true, length_penalty: -2 }).call.output.beam?.lengthPenalty, -2);
  assert.equal(decode({ use_beam_search: false, length_penalty: 9e9 }).call.output.beam, undefined);
});

test("structural tags: both forms, as text and as an object, with what libraries print for fields left out", () => {
  const json = { type: "json_schema", json_schema: { type: "object" } };
  const tag = { type: "tag", begin: "<f>", content: { ...json, style: "json", any_order: false }, end: "</f>" };
  const triggered = { type: "triggered_tags", triggers: ["<f"], tags: [tag], excludes: null, at_least_one: false };
  const read = {
    kind: "triggered_tags",
    triggers: ["<f"],
    tags: [{ kind: "tag", begin: "<f>", content: { kind: "json_schema", schema: { type: "object" } }, ends: ["</f>"] }],
    excludes: [],
    atLeastOne: false,
    stopAfterFirst: false,
  };
  const old = { structures: [{ begin: "<f>", schema: { type: "object" }, end: "</f>" }], triggers: ["<f"] };
  for (const form of [{ format: triggered }, old]) {
    const whole = { type: "structural_tag", ...form };
    const bodies = [
      { response_format: whole },
      { structured_outputs: { structural_tag: JSON.stringify(whole) } },
      { structured_outputs: { structural_tag: form } },
    ];
    for (const body of bodies)
      assert.deepEqual(decode(body).call.output.structured, { kind: "structural_tag", format: read });
  }
  const { structured } = decode({
    response_format: {
      type: "structural_tag",
      format: { type: "any_text", excludes: ["x"], max_tokens: null, max_chars: null },
    },
  }).call.output;
  assert.deepEqual(structured, { kind: "structural_tag", format: { kind: "any_text", excludes: ["x"] } });
});

test("tokens by id take the place of the likeliest; a thought of -1 tokens has no bound", () => {
  const { call, print } = decode({ logprobs: true, top_logprobs: 2, logprob_token_ids: [7, 3, 7] });
  assert.deepEqual([call.sampling.logprobTokenIds, print.logprobs], [[7, 3], -1]);
  assert.equal(decode({ thinking_token_budget: -1 }).call.sampling.thinkingBudget, undefined);
  assert.equal(decode({ thinking_token_budget: 0 }).call.sampling.thinkingBudget, 0);
});

test("a removed field names its successor", () => {
  assert.throws(() => decode({ guided_regex: "a+" }), /structured_outputs/);
});

test("caps are what the app says", () => {
  assert.throws(() => decode({ n: 3 }, { ...DEFAULT_CAPS, n: 2 }), /at most 2/);
});
