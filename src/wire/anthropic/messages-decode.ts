/**
 * A Messages request → core: a chat call of one choice. Everything that needs no model is checked here.
 */
import type { ChatCall, OutputOptions, TemplateOptions } from "#core/calls.ts";
import type { ChatMessage, ToolDefinition } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { requireObject } from "#wire/openai/_compound.ts";
import { decodeSampling, decodeStop, dropAbsent } from "#wire/openai/_sampling.ts";
import { decodeConversation } from "./_conversation.ts";
import { decodeFormat, decodeTemplate, decodeThinking } from "./_thinking.ts";
import { decodeTools } from "./_tools.ts";
import type { MessagesBodyValue, PromptBody } from "./messages-schema.ts";

/** @param reasons whether the model's thoughts are marked: elsewhere a budget for them bounds nothing, and is dropped */
export function decodeMessages(body: MessagesBodyValue, caps: RequestCaps, reasons: boolean): ChatCall {
  refuseUnsupported(body);
  if (body.metadata !== undefined && body.metadata !== null) requireObject(body.metadata, "metadata");
  const maxTokens = body.max_tokens;
  if (maxTokens < 1) throw invalid("max_tokens", `max_tokens must be at least 1, got ${maxTokens}.`);
  const { temperature, top_p, top_k } = body;
  const { budget, shown } = decodeThinking(body.thinking);
  const format = decodeFormat(body.output_config, caps);
  const thinking_token_budget = reasons ? budget : undefined;
  return {
    model: body.model,
    messages: decodeConversation(body, caps),
    ...decodeTools(body.tools, body.tool_choice, caps),
    includeReasoning: shown,
    sampling: decodeSampling({ temperature, top_p, top_k, thinking_token_budget }, caps, maxTokens, false),
    output: dropAbsent<OutputOptions>({
      n: 1,
      stop: decodeStopSequences(body.stop_sequences, caps),
      includeStopString: false,
      skipSpecialTokens: true,
      returnTokenIds: false,
      stream: body.stream ?? false,
      structured: format,
      structuredField: format === undefined ? undefined : "output_config.format",
    }),
    template: decodeTemplate(body, caps),
  };
}

function decodeStopSequences(value: unknown, caps: RequestCaps): readonly string[] {
  const field = "stop_sequences";
  if (typeof value === "string") throw invalid(field, `${field} must be a list, not a string.`);
  return decodeStop(value, caps, field);
}

export interface CountTokensCall {
  readonly model: string;
  readonly source: {
    readonly kind: "chat";
    readonly messages: readonly ChatMessage[];
    readonly tools: readonly ToolDefinition[];
    readonly template: TemplateOptions;
  };
  readonly withSpellings: false;
}

/** The prompt that the same body would make of /v1/messages. @throws Fault invalid_request naming the field */
export function decodeCountTokens(body: PromptBody, caps: RequestCaps): CountTokensCall {
  refuseUnsupported(body);
  const { tools } = decodeTools(body.tools, body.tool_choice, caps);
  return {
    model: body.model,
    source: { kind: "chat", messages: decodeConversation(body, caps), tools, template: decodeTemplate(body, caps) },
    withSpellings: false,
  };
}

/** Known, not done here, and lost if it were ignored. */
const REFUSED = [
  ["mcp_servers", "this server calls no MCP servers for a client"],
  ["container", "this server has no containers"],
  ["kv_transfer_params", "it is not accepted from clients"],
] as const;

function refuseUnsupported(body: PromptBody & { readonly kv_transfer_params?: unknown }): void {
  for (const [field, reason] of REFUSED) {
    const value = body[field];
    const empty = value === undefined || value === null || value === "";
    if (!empty && (typeof value !== "object" || Object.keys(value).length > 0))
      throw invalid(field, `${field}: ${reason}.`);
  }
}
