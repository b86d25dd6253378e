/**
 * A chat request → core. Everything that needs no model is checked here; vocabulary and window are serving's.
 */
import type { ChatCall, TemplateOptions } from "#core/calls.ts";
import type { ChatMessage } from "#core/chat.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { decodeMessages } from "./_messages.ts";
import { decodeOutput, decodePrint, type Print } from "./_output.ts";
import { refuseUnsupported } from "./_refusals.ts";
import { decodeLogprobs, decodeN, decodeSampling, dropAbsent } from "./_sampling.ts";
import { decodeTemplateOptions } from "./_template.ts";
import { decodeToolChoice, decodeTools } from "./_tools.ts";
import type { ChatBodyValue } from "./chat-schema.ts";

/** What a conversation says of its answer. */
export interface Speaker {
  /** Who speaks: assistant, or the last message's role when no new turn was opened. */
  readonly role: string;
  /** Text to print before the answer (`echo`); "" = none. */
  readonly echoText: string;
}

export interface ChatPrint extends Print, Speaker {
  /** `return_prompt_text`: print what the template made. */
  readonly promptText: boolean;
}

export interface DecodedChat {
  readonly call: ChatCall;
  readonly print: ChatPrint;
}

/**
 * @param path where the messages stand in the request
 * @throws Fault invalid_request | not_implemented, naming the field
 */
export function decodeChat(body: ChatBodyValue, caps: RequestCaps, path = "messages"): DecodedChat {
  refuseUnsupported(body);
  const messages = decodeMessages(body.messages, caps, path);
  const tools = decodeTools(body.tools, caps);
  const n = decodeN(body.n, 1, caps);
  const logprobs = decodeTopLogprobs(body, caps);
  const template = decodeTemplateOptions(body, caps);
  const maxTokens = decodeBudget(body);
  const echoLogprobs = body.echo ? (body.top_logprobs ?? 0) : undefined;
  const output = decodeOutput(body, caps, { n, logprobs, echoLogprobs, maxTokens });
  const call = dropAbsent<ChatCall>({
    model: body.model ?? undefined,
    messages,
    tools,
    toolChoice: decodeToolChoice(body.tool_choice, tools),
    parallelToolCalls: body.parallel_tool_calls ?? true,
    includeReasoning: body.include_reasoning ?? true,
    sampling: decodeSampling(body, caps, maxTokens, logprobs !== undefined),
    output,
    template,
  });
  return {
    call,
    print: {
      ...decodePrint(body, logprobs),
      ...speakerOf(messages, template, body.echo ?? false),
      promptText: body.return_prompt_text ?? false,
    },
  };
}

export function speakerOf(
  messages: readonly ChatMessage[],
  template: Pick<TemplateOptions, "addGenerationPrompt">,
  echo: boolean,
): Speaker {
  const role = template.addGenerationPrompt ? "assistant" : (messages.at(-1)?.role ?? "assistant");
  return { role, echoText: echo ? echoText(messages, role) : "" };
}

/** `max_completion_tokens` wins over the older `max_tokens`. */
function decodeBudget(body: ChatBodyValue): number | undefined {
  const field = typeof body.max_completion_tokens === "number" ? "max_completion_tokens" : "max_tokens";
  const value = body[field];
  if (value === undefined || value === null) return undefined;
  if (value < 1) throw invalid(field, `${field} must be at least 1, got ${value}.`);
  return value;
}

function decodeTopLogprobs(body: ChatBodyValue, caps: RequestCaps): number | undefined {
  const top = decodeLogprobs("top_logprobs", body.top_logprobs, caps) ?? 0;
  if (body.logprobs) return top;
  if (top !== 0) throw invalid("top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true.");
  return undefined;
}

function echoText(messages: readonly ChatMessage[], role: string): string {
  const last = messages.at(-1);
  if (last === undefined || last.role !== role || last.content === null) return "";
  return typeof last.content === "string" ? last.content : last.content.map((part) => part.text).join("\n");
}
