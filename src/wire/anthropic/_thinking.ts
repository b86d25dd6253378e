/**
 * `thinking` and `output_config`: what they say to the template, to the sampler and about the text.
 */
import type { TemplateOptions } from "#core/calls.ts";
import { invalid } from "#core/fault.ts";
import type { RequestCaps } from "#core/request-caps.ts";
import type { StructuredOutput } from "#core/structured.ts";
import { isObject, type JsonObject, kindOf, requireObject, requireSize } from "#wire/openai/_compound.ts";
import { decodeTemplateOptions } from "#wire/openai/_template.ts";

const EFFORTS: readonly unknown[] = ["low", "medium", "high", "xhigh", "max"];
const DISPLAYS: readonly unknown[] = ["summarized", "omitted"];

interface Thinking {
  /** Absent: as the template does by itself. */
  readonly enabled?: boolean;
  readonly budget?: number;
  readonly shown: boolean;
}

/** @throws Fault invalid_request naming the field */
export function decodeThinking(value: unknown): Thinking {
  if (value === undefined || value === null) return { shown: true };
  const given = requireObject(value, "thinking");
  if (given.type === "disabled") return { enabled: false, shown: true };
  if (given.type !== "enabled" && given.type !== "adaptive")
    throw invalid("thinking.type", "thinking.type must be enabled, adaptive or disabled.");
  const display = given.display ?? "summarized";
  if (!DISPLAYS.includes(display)) throw invalid("thinking.display", "thinking.display must be summarized or omitted.");
  const thinking = { enabled: true, shown: display !== "omitted" };
  return given.type === "adaptive" ? thinking : { ...thinking, budget: decodeBudget(given.budget_tokens) };
}

function decodeBudget(value: unknown): number {
  const field = "thinking.budget_tokens";
  if (!Number.isSafeInteger(value) || (value as number) < 1)
    throw invalid(field, `${field} must be an integer from 1 up.`);
  return value as number;
}

export interface TemplateBody {
  readonly thinking?: unknown;
  readonly output_config?: unknown;
  readonly chat_template_kwargs?: unknown;
}

/** What the client writes into chat_template_kwargs itself comes before what follows from the other fields. */
export function decodeTemplate(body: TemplateBody, caps: RequestCaps): TemplateOptions {
  const { enabled } = decodeThinking(body.thinking);
  const given = body.chat_template_kwargs ?? {};
  const own = requireObject(given, "chat_template_kwargs");
  return decodeTemplateOptions(
    {
      chat_template_kwargs: enabled === undefined ? own : { enable_thinking: enabled, ...own },
      reasoning_effort: decodeEffort(outputConfig(body.output_config)),
    },
    caps,
  );
}

function outputConfig(value: unknown): JsonObject {
  return value === undefined || value === null ? {} : requireObject(value, "output_config");
}

function decodeEffort({ effort }: JsonObject): string | null {
  if (effort === undefined || effort === null) return null;
  if (typeof effort !== "string" || !EFFORTS.includes(effort))
    throw invalid("output_config.effort", `output_config.effort must be one of ${EFFORTS.join(", ")}.`);
  return effort;
}

/** @throws Fault invalid_request naming the field */
export function decodeFormat(value: unknown, caps: RequestCaps): StructuredOutput | undefined {
  const { format } = outputConfig(value);
  if (format === undefined || format === null) return undefined;
  const field = "output_config.format";
  const given = requireObject(format, field);
  if (given.type !== "json_schema") throw invalid(`${field}.type`, `${field}.type must be json_schema.`);
  const { schema } = given;
  if (!isObject(schema))
    throw invalid(`${field}.schema`, `${field}.schema must be a JSON schema, not ${kindOf(schema)}.`);
  requireSize(schema, `${field}.schema`, caps.grammarCharacters, caps.grammarDepth);
  return { kind: "json_schema", schema };
}
