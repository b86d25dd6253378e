/**
 * The families of models by how they write tool calls and reasoning, under vLLM's names for its parsers. What reads and
 * writes them is in the prompt area; a family that is named here and not there does not compile.
 */

export const TOOL_FAMILIES = [
  "hermes",
  "llama3_json",
  "llama4_pythonic",
  "pythonic",
  "mistral",
  "qwen3_coder",
  "deepseek_v3",
  "deepseek_v31",
  "granite",
  "kimi_k2",
  "glm45",
  "openai",
] as const;

export type ToolFamily = (typeof TOOL_FAMILIES)[number];

/** Names for what another family reads: vLLM's own doubles, and those that it gives to forms that are the same here. */
export const TOOL_ALIASES = {
  llama4_json: "llama3_json",
  qwen3_xml: "qwen3_coder",
  glm47: "glm45",
  granite4: "hermes",
  gpt_oss: "openai",
} as const satisfies Readonly<Record<string, ToolFamily>>;

export const REASONING_FAMILIES = ["deepseek_r1", "qwen3", "mistral", "granite", "glm45", "openai_gptoss"] as const;

export type ReasoningFamily = (typeof REASONING_FAMILIES)[number];

export const REASONING_ALIASES = {
  glm47: "glm45",
  openai: "openai_gptoss",
  gpt_oss: "openai_gptoss",
} as const satisfies Readonly<Record<string, ReasoningFamily>>;

export function toolFamilyOf(name: ToolFamily | keyof typeof TOOL_ALIASES): ToolFamily {
  return isAlias(TOOL_ALIASES, name) ? TOOL_ALIASES[name] : name;
}

export function reasoningFamilyOf(name: ReasoningFamily | keyof typeof REASONING_ALIASES): ReasoningFamily {
  return isAlias(REASONING_ALIASES, name) ? REASONING_ALIASES[name] : name;
}

function isAlias<A extends object>(aliases: A, name: PropertyKey): name is keyof A {
  return Object.hasOwn(aliases, name);
}
