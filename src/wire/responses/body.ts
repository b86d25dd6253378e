/**
 * A response as it begins, field for field as vLLM's ResponsesResponse dumps it; and one from the store as it is
 * printed now.
 */
import type { KeptResponse, ResponseBody } from "#core/responses.ts";
import type { Echo } from "./decode.ts";

export interface Beginning {
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  readonly model: string;
  /** Sampling where the request says nothing: what the model does then. */
  readonly temperature: number;
  readonly topP: number;
  readonly stored: boolean;
}

export function beginBody(begin: Beginning, echo: Echo): ResponseBody {
  return {
    id: begin.id,
    created_at: begin.created,
    error: null,
    incomplete_details: null,
    instructions: echo.instructions,
    metadata: echo.metadata,
    model: begin.model,
    object: "response",
    output: [],
    parallel_tool_calls: echo.parallel_tool_calls,
    temperature: echo.temperature ?? begin.temperature,
    tool_choice: echo.tool_choice,
    tools: echo.tools,
    top_p: echo.top_p ?? begin.topP,
    background: echo.background,
    max_output_tokens: echo.max_output_tokens,
    max_tool_calls: echo.max_tool_calls,
    previous_response_id: echo.previous_response_id,
    prompt: null,
    prompt_cache_key: echo.prompt_cache_key,
    reasoning: echo.reasoning,
    safety_identifier: echo.safety_identifier,
    service_tier: echo.service_tier,
    status: echo.background ? "queued" : "in_progress",
    store: begin.stored,
    text: echo.text,
    top_logprobs: echo.top_logprobs,
    truncation: echo.truncation,
    usage: null,
    user: echo.user,
  };
}

/** The beginning of a stored response, for a writer that replays it. */
export function rewound(body: ResponseBody): ResponseBody {
  return { ...body, error: null, incomplete_details: null, output: [], status: "queued", usage: null };
}

/** The status in the store stands over what was printed when the response began. */
export function printKept({ body, status, error }: KeptResponse): ResponseBody {
  return { ...body, status, ...(error === undefined ? {} : { error }) };
}
