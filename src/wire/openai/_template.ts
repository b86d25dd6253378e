/**
 * What a request may tell the chat template: variables, never the template itself.
 */
import type { TemplateOptions } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import { type JsonObject, requireList, requireObject, requireSize } from "./_compound.ts";
import { dropAbsent } from "./_sampling.ts";

/** Names that the server sets, or that would change how templates are run (CVE-2025-61620, CVE-2025-62426). */
const RESERVED = new Set([
  "add_generation_prompt",
  "bos_token",
  "chat_template",
  "continue_final_message",
  "conversation",
  "documents",
  "eos_token",
  "messages",
  "raise_exception",
  "return_dict",
  "return_tensors",
  "strftime_now",
  "tokenize",
  "tools",
]);
const MAX_DEPTH = 32;

export interface TemplateBody {
  readonly add_generation_prompt?: boolean | undefined;
  readonly continue_final_message?: boolean | undefined;
  readonly add_special_tokens?: boolean | undefined;
  readonly documents?: unknown;
  readonly chat_template_kwargs?: unknown;
  readonly reasoning_effort?: string | null | undefined;
}

export function decodeTemplateOptions(body: TemplateBody, caps: RequestCaps): TemplateOptions {
  const continueFinal = body.continue_final_message ?? false;
  if (continueFinal && body.add_generation_prompt === true) {
    throw invalid(
      "continue_final_message",
      "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
    );
  }
  return dropAbsent<TemplateOptions>({
    addGenerationPrompt: continueFinal ? false : (body.add_generation_prompt ?? true),
    continueFinalMessage: continueFinal,
    addSpecialTokens: body.add_special_tokens ?? false,
    kwargs: decodeKwargs(body, caps),
    documents: decodeDocuments(body.documents, caps),
  });
}

/** @throws Fault invalid_request: too much of it, or what the server sets itself */
export function decodeKwargs(body: TemplateBody, caps: RequestCaps): JsonObject {
  const given = body.chat_template_kwargs;
  const kwargs = given === undefined || given === null ? {} : requireObject(given, "chat_template_kwargs");
  requireSize(kwargs, "chat_template_kwargs", caps.templateCharacters, MAX_DEPTH);
  const reserved = Object.keys(kwargs).find((name) => RESERVED.has(name));
  if (reserved !== undefined)
    throw invalid(`chat_template_kwargs.${reserved}`, `chat_template_kwargs may not set ${reserved}.`);
  const effort = body.reasoning_effort;
  if (effort === undefined || effort === null) return kwargs;
  return { enable_thinking: effort !== "none", ...kwargs, reasoning_effort: effort };
}

function decodeDocuments(value: unknown, caps: RequestCaps): readonly JsonObject[] | undefined {
  if (value === undefined || value === null) return undefined;
  const list = requireList(value, "documents", caps.messages).map((entry, i) => requireObject(entry, `documents.${i}`));
  requireSize(list, "documents", caps.templateCharacters, MAX_DEPTH);
  return list;
}
