/**
 * Outputs in each family's own form, written from its documented format, and what they say. Tests only.
 */
import type { ToolDefinition } from "#core/chat.ts";
import type { ToolFamily } from "#core/parser-families.ts";
import type { ToolParser, ToolPart } from "./parser.ts";

export interface Outcome {
  readonly content: string;
  readonly calls: readonly { readonly name: string; readonly arguments: string }[];
  readonly ids: readonly string[];
}

/** @throws Error when fragments come out of order */
export function read(parser: ToolParser, chunks: readonly string[]): Outcome {
  const parts: ToolPart[] = [...chunks.flatMap((chunk) => parser.push(chunk)), ...parser.end()];
  let content = "";
  const calls: { name: string; arguments: string }[] = [];
  const ids: string[] = [];
  for (const part of parts) {
    const call = part.type === "call" ? calls[part.index] : undefined;
    if (part.type === "text") content += part.text;
    else if (part.name !== undefined) {
      if (part.index !== calls.length || part.id === undefined) throw new Error("calls come in order, with an id");
      calls.push({ name: part.name, arguments: part.arguments });
      ids.push(part.id);
    } else if (call === undefined || part.index !== calls.length - 1) throw new Error("fragments follow their call");
    else call.arguments += part.arguments;
  }
  return { content, calls, ids };
}

const tool = (name: string, properties: object): ToolDefinition => ({ name, parameters: { properties }, raw: {} });

export const TOOLS: readonly ToolDefinition[] = [
  tool("get_weather", {
    city: { type: "string" },
    days: { type: "integer" },
    metric: { type: "boolean" },
    limit: { type: "number" },
    note: { anyOf: [{ type: "string" }, { type: "null" }] },
    where: { type: "object" },
    tags: { type: "array" },
  }),
  tool("now", {}),
];

/** What the first call of each sample says; a second one calls `now` with nothing. */
export const SAID = {
  city: 'São "Paulo" \\ 😀 {[',
  days: 3,
  metric: true,
  limit: -0.5,
  note: null,
  where: { lat: [1, { deep: "}]" }], none: null },
  tags: ["a,b", "c)"],
};

const JSON_ARGUMENTS = JSON.stringify(SAID);
const PYTHON_ARGUMENTS =
  `city='São "Paulo" \\\\ 😀 {[', days=3, metric=True, limit=-0.5, note=None, ` +
  `where={"lat": [1, {'deep': "}]"}], "none": None}, tags=["a,b", 'c)']`;
const TEXTS: readonly (readonly [string, string])[] = [
  ["city", SAID.city],
  ["days", "3"],
  ["metric", "true"],
  ["limit", "-0.5"],
  ["note", "null"],
  ["where", JSON.stringify(SAID.where)],
  ["tags", "['a,b', 'c)']"],
];

const hermes = (name: string, args: string): string =>
  `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`;
const qwen = (name: string, values: readonly (readonly [string, string])[]): string =>
  `<tool_call>\n<function=${name}>\n${values.map(([key, text]) => `<parameter=${key}>\n${text}\n</parameter>\n`).join("")}</function>\n</tool_call>`;
const glm = (name: string, values: readonly (readonly [string, string])[]): string =>
  `<tool_call>${name}\n${values.map(([key, text]) => `<arg_key>${key}</arg_key>\n<arg_value>${text}</arg_value>\n`).join("")}</tool_call>`;
const v3 = (name: string, args: string): string =>
  `<｜tool▁call▁begin｜>function<｜tool▁sep｜>${name}\n\`\`\`json\n${args}\n\`\`\`<｜tool▁call▁end｜>`;
const v31 = (name: string, args: string): string =>
  `<｜tool▁call▁begin｜>${name}<｜tool▁sep｜>${args}<｜tool▁call▁end｜>`;
const section = (calls: string): string => `<｜tool▁calls▁begin｜>${calls}<｜tool▁calls▁end｜>`;
const kimi = (id: string, args: string): string =>
  `<|tool_call_begin|>functions.${id}<|tool_call_argument_begin|>${args}<|tool_call_end|>`;
const harmony = (name: string, args: string): string =>
  `<|start|>assistant<|channel|>commentary to=functions.${name} <|constrain|>json<|message|>${args}<|call|>`;
const named = (name: string, args: string, key = "arguments"): string => `{"name": "${name}", "${key}": ${args}}`;

export interface Sample {
  /** Two calls: get_weather with SAID, now with nothing. */
  readonly calls: string;
  /** Text that may stand before them and is content; "" where calls are the whole output. */
  readonly before: string;
  /** What looks like a call at first and is none. */
  readonly almost: readonly string[];
  /** Pieces of the family's own, for random texts. */
  readonly pieces: readonly string[];
}

export const SAMPLES: Readonly<Record<ToolFamily, Sample>> = {
  hermes: {
    calls: `${hermes("get_weather", JSON_ARGUMENTS)}\n${hermes("now", "{}")}`,
    before: "Let me see.\n",
    almost: ["<tool_call>not json</tool_call>", '<tool_call>{"nome": 1}</tool_call> x', "a < b <tool", "<tool_call>"],
    pieces: ["<tool_call>", "</tool_call>", '{"name":', '"f"', ', "arguments": {', hermes("f", '{"a": 1}')],
  },
  llama3_json: {
    calls: `<|python_tag|>${named("get_weather", JSON_ARGUMENTS, "parameters")}; ${named("now", "{}", "parameters")}`,
    before: "",
    almost: ['{"answer": 42} is it', "{not json", 'So: {"name": "f", "parameters": {}}', "<|python_tag|>print(1)", "<|py"],
    pieces: ["<|python_tag|>", ";", named("f", '{"a": ";"}', "parameters"), '{"name": "g"}', "{"],
  },
  llama4_pythonic: {
    calls: `<|python_start|>[get_weather(${PYTHON_ARGUMENTS}), now()]<|python_end|>`,
    before: "",
    almost: ["<|python_start|>[1, 2]", "[see](x)", "[f(a)]", "[f(a=b)]", "[f(a=1", "f(a=1)"],
    pieces: ["<|python_start|>", "<|python_end|>", "[", "f(a=1)", ", ", "]", "g(b='x\\'')", '"""'],
  },
  pythonic: {
    calls: `[get_weather(${PYTHON_ARGUMENTS}), now()]`,
    before: "",
    almost: ["[1, 2]", "[f(a=__import__('os').system('x'))]", "[f(*a)]", "[f(a=1+1)]", "[f(a=f'x')]", "[]", "[f(a=b'x')]"],
    pieces: ["[", "f(a=1)", ", ", "]", "g(b='x\\'', c=[1, {}])", "'''", "(", ")", "\\"],
  },
  mistral: {
    calls: `[TOOL_CALLS]get_weather[ARGS]${JSON_ARGUMENTS}[TOOL_CALLS]now[ARGS]{}`,
    before: "Let me see. ",
    almost: ["[TOOL_CALLS]", "[TOOL_CALLS] two words {", "[TOOL_CALLS][1]", "[TOOL_CALLS]f[ARGS]x{}", "[TOOL_"],
    pieces: ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "f", "{}", '{"a": "[TOOL_CALLS]"}', "[", named("f", "{}"), "]", ","],
  },
  qwen3_coder: {
    calls: `${qwen("get_weather", TEXTS)}\n${qwen("now", [])}`,
    before: "Let me see.\n",
    almost: ["<tool_call>\n", "<tool_call>x", "<function=", "<function=f> hm", "<function=a b>\n</function>"],
    pieces: [
      "<tool_call>", "</tool_call>", "<function=", "get_weather", ">", "<parameter=", "city", "days", "</parameter>", "</function>",
      "\n</function>", "\n<parameter=", qwen("get_weather", [["city", "a\n\nb"], ["days", "x"]]),
    ],
  },
  deepseek_v3: {
    calls: section(`${v3("get_weather", JSON_ARGUMENTS)}\n${v3("now", "{}")}`),
    before: "Let me see.",
    almost: ["<｜tool▁calls▁begin｜>", section("x"), "<｜tool▁call▁begin｜>f<｜tool▁sep｜>g\n{", section("<｜tool▁call▁begin｜>{}")],
    pieces: [
      "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "function", "```",
      "```json\n", "f\n", "{}", v3("f", '{"a": "```"}'),
    ],
  },
  deepseek_v31: {
    calls: section(`${v31("get_weather", JSON_ARGUMENTS)}${v31("now", "{}")}`),
    before: "Let me see.",
    almost: ["<｜tool▁calls▁begin｜>", section("x"), "<｜tool▁call▁begin｜>f{}", section("<｜tool▁call▁begin｜>a b<｜tool▁sep｜>{}")],
    pieces: [
      "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "f", "{}",
      v31("f", '{"a": "<｜tool▁call▁end｜>"}'),
    ],
  },
  granite: {
    calls: `<|tool_call|>[${named("get_weather", JSON_ARGUMENTS)}, ${named("now", "{}")}]`,
    before: "",
    almost: ["<|tool_call|>", "<tool_call>[]", "[1]", '[{"name": 3, "arguments": {}}', "<|tool_call|>f", "yes [1]"],
    pieces: ["<|tool_call|>", "<tool_call>", "[", "]", ",", named("f", '{"a": "]"}'), "{}"],
  },
  kimi_k2: {
    calls: `<|tool_calls_section_begin|>${kimi("get_weather:0", JSON_ARGUMENTS)}${kimi("now:1", "{}")}<|tool_calls_section_end|>`,
    before: "Let me see.",
    almost: [
      "<|tool_calls_section_begin|>", "<|tool_call_begin|>f<|tool_call_argument_begin|>{}", "<|tool_call_begin|>f:0{}",
      "<|tool_call_begin|>f:0<|tool_call_argument_begin|>x",
    ],
    pieces: [
      "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_end|>",
      "<|tool_call_argument_begin|>", "functions.", "f:0", "{}", kimi("f:1", '{"a": "<|tool_call_end|>"}'),
    ],
  },
  glm45: {
    calls: `${glm("get_weather", TEXTS)}\n${glm("now", [])}`,
    before: "Let me see.\n",
    almost: ["<tool_call>", "<tool_call>a b\n", "<tool_call>f\nhm", '<tool_call>{"name": "f"}</tool_call>'],
    pieces: [
      "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "get_weather\n", "city", "days",
      glm("get_weather", [["city", " a\n"], ["x", "</tool_call>"]]),
    ],
  },
  openai: {
    calls: `<|channel|>analysis<|message|>Hm.<|end|>${harmony("get_weather", JSON_ARGUMENTS)}${harmony("now", "{}")}`,
    before: "",
    almost: [],
    pieces: [
      "<|start|>", "assistant", "<|channel|>", "analysis", "commentary", "final", "<|message|>", "<|end|>", "<|call|>",
      " to=functions.f", "<|constrain|>json", "{}", harmony("f", '{"a": "<|call|><|start|>"}'),
    ],
  },
}; // biome-ignore format: one glance
