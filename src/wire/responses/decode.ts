/**
 * A responses request → core, and what of it the answer prints again. Everything that needs no model is checked here.
 */
import { Fault, invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { ResponseCall } from "#core/responses.ts";
import { decodeOutput } from "#wire/openai/_output.ts";
import { refuseUnsupported } from "#wire/openai/_refusals.ts";
import { decodeLogprobs, decodeSampling, dropAbsent } from "#wire/openai/_sampling.ts";
import { decodeTemplateOptions } from "#wire/openai/_template.ts";
import { decodeInput } from "./_input.ts";
import { decodeInclude, decodeMetadata, decodeText } from "./_text.ts";
import { decodeToolFields } from "./_tools.ts";
import type { ResponsesBodyValue } from "./schema.ts";

/** Fields of the request that stand in the answer. */
export interface Echo {
  readonly instructions: string | null;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly parallel_tool_calls: boolean;
  readonly temperature: number | undefined;
  readonly tool_choice: unknown;
  readonly tools: unknown;
  readonly top_p: number | undefined;
  readonly background: boolean;
  readonly max_output_tokens: number | null;
  readonly max_tool_calls: number | null;
  readonly previous_response_id: string | null;
  readonly reasoning: { readonly effort: string | null; readonly summary: string | null };
  readonly service_tier: string;
  readonly text: unknown;
  readonly top_logprobs: number;
  readonly truncation: string;
  readonly user: string | null;
  readonly safety_identifier: string | null;
  readonly prompt_cache_key: string | null;
}

export interface DecodedResponse {
  readonly call: ResponseCall;
  readonly echo: Echo;
}

/** @throws Fault invalid_request | not_implemented, naming the field */
export function decodeResponse(body: ResponsesBodyValue, caps: RequestCaps): DecodedResponse {
  refuseUnsupported(body);
  refuseForeign(body);
  const { tools, choice } = decodeToolFields(body.tools, body.tool_choice, caps);
  const text = decodeText(body.text, caps);
  const logprobs = decodeInclude(body.include, decodeLogprobs("top_logprobs", body.top_logprobs, caps));
  const maxTokens = body.max_output_tokens ?? undefined;
  const decided = { n: 1, logprobs, echoLogprobs: undefined, maxTokens };
  const output = decodeOutput({ ...body, stream_options: undefined, response_format: undefined }, caps, decided);
  if (text.format !== undefined && output.structured !== undefined)
    throw invalid("structured_outputs", "structured_outputs and text.format cannot both be given.");
  const chat = dropAbsent<ResponseCall["chat"]>({
    model: body.model ?? undefined,
    messages: decodeInput(body.input, caps),
    tools,
    toolChoice: choice,
    parallelToolCalls: body.parallel_tool_calls ?? true,
    includeReasoning: true,
    sampling: decodeSampling({ ...body, stream_options: undefined }, caps, maxTokens, logprobs !== undefined),
    output: {
      ...output,
      ...(text.format === undefined ? {} : { structured: text.format, structuredField: "text.format" }),
      ...(body.truncation === "auto" ? { truncatePrompt: { tokens: -1, side: "left" } } : {}),
    },
    template: decodeTemplateOptions({ reasoning_effort: body.reasoning?.effort }, caps),
  });
  return {
    call: dropAbsent<ResponseCall>({
      chat,
      instructions: body.instructions ?? undefined,
      previousId: body.previous_response_id ?? undefined,
      store: body.store ?? undefined,
      background: body.background ?? false,
      stream: body.stream ?? false,
    }),
    echo: echoOf(body, text.echo),
  };
}

/**
 * What of a request stands in its answer, where others answer it: of tools, those that the client itself runs.
 * @throws Fault invalid_request | not_implemented, naming the field
 */
export function decodeEcho(body: ResponsesBodyValue, caps: RequestCaps): Echo {
  decodeToolFields(body.tools, body.tool_choice, caps);
  return echoOf(body, decodeText(body.text, caps).echo);
}

function echoOf(body: ResponsesBodyValue, text: unknown): Echo {
  return {
    instructions: body.instructions ?? null,
    metadata: decodeMetadata(body.metadata),
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    temperature: body.temperature ?? undefined,
    tool_choice: body.tool_choice ?? "auto",
    tools: body.tools ?? [],
    top_p: body.top_p ?? undefined,
    background: body.background ?? false,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: {
      effort: body.reasoning?.effort ?? null,
      summary: body.reasoning?.summary ?? body.reasoning?.generate_summary ?? null,
    },
    service_tier: body.service_tier ?? "auto",
    text,
    top_logprobs: body.top_logprobs ?? 0,
    truncation: body.truncation ?? "disabled",
    user: body.user ?? null,
    safety_identifier: body.safety_identifier ?? null,
    prompt_cache_key: body.prompt_cache_key ?? null,
  };
}

function isFilled(value: unknown): boolean {
  if (value === undefined || value === null || value === "" || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

/** Fields of this API that this server does not do, and such of others that would be lost in silence. */
const FOREIGN: readonly (readonly [
  field: keyof ResponsesBodyValue,
  kind: "invalid_request" | "not_implemented",
  why: string,
])[] = [
  ["prompt", "invalid_request", "prompt is not supported: this server keeps no prompt templates."],
  ["conversation", "invalid_request", "conversation is not supported; continue with previous_response_id."],
  ["response_format", "invalid_request", "response_format is not a field of this route; use text.format."],
  ["context_management", "not_implemented", "context_management is not supported by this server."],
  ["moderation", "not_implemented", "moderation is not supported by this server."],
  [
    "previous_input_messages",
    "not_implemented",
    "previous_input_messages is not supported by this server; send input.",
  ],
  [
    "previous_response",
    "not_implemented",
    "previous_response is not supported by this server; use previous_response_id.",
  ],
  ["enable_response_messages", "not_implemented", "enable_response_messages is not supported by this server."],
];

function refuseForeign(body: ResponsesBodyValue): void {
  for (const [field, kind, why] of FOREIGN) if (isFilled(body[field])) throw new Fault(kind, why, { param: field });
  const options = body.stream_options;
  if (options?.include_obfuscation === true)
    throw new Fault("not_implemented", "Events are not padded by this server.", {
      param: "stream_options.include_obfuscation",
    });
  if (options && Object.keys(options).length > 0 && !body.stream)
    throw invalid("stream_options", "stream_options can only be given with stream.");
}
