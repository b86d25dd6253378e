/**
 * /server_info, /start_profile, /stop_profile, /fault_tolerance/*, /tokenizer_info, after vllm/entrypoints/serve.
 */
import { z } from "zod";
import { invalid } from "#core/fault.ts";
import { queryCount } from "#wire/admin/_fields.ts";
import { shape } from "#wire/openai/_fields.ts";

const Told = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));

export const ServerInfoQuery = z.object({
  config_format: z.enum(["text", "json"]).optional().meta({ description: "Of vllm_config. Default text." }),
});
export const ServerInfoReply = z.object({
  vllm_config: z.union([z.string(), Told]).meta({ description: "Settings; secrets and paths are not told." }),
  vllm_env: z.object({}).meta({ description: "Empty: the environment is never told." }),
  system_env: Told,
  engines: z.array(z.object({ engine: z.int(), state: z.string(), restarts: z.int() })),
  is_paused: z.boolean(),
  sleep_state: z.string(),
});

interface Facts {
  readonly settings: z.output<typeof Told>;
  readonly system: z.output<typeof Told>;
  readonly engines: readonly { readonly engine: number; readonly state: string; readonly restarts: number }[];
  readonly paused: boolean;
  readonly sleep: string;
}

export function encodeServerInfo(facts: Facts, format: "text" | "json" = "text"): z.output<typeof ServerInfoReply> {
  const { settings, system, engines, paused, sleep } = facts;
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}`);
  return {
    vllm_config: format === "json" ? { ...settings } : lines.join(", "),
    vllm_env: {},
    system_env: { ...system },
    engines: engines.map(({ engine, state, restarts }) => ({ engine, state, restarts })),
    is_paused: paused,
    sleep_state: sleep,
  };
}

export const StartProfileQuery = z.object({
  seconds: queryCount(0, 600, 0, "After so long it ends by itself; 0: as long as it may be."),
});
export const StartProfileReply = z.object({ message: z.string(), seconds: z.number() });
export const StopProfileReply = z.object({
  files: z.array(z.string()).meta({ description: "In the folder of --profile-dir." }),
  left_out: z
    .array(z.string())
    .meta({ description: "Larger than --profile-max-bytes, or not to be had: not written." }),
});

export const FaultToleranceBody = z.object({
  fault_tolerance_instruction: z.enum(["pause", "retry"]),
  fault_tolerance_timeout: z.int().gte(1).lte(240).meta({ description: "Seconds." }),
  fault_tolerance_params: shape({ type: "object", maxProperties: 0, description: "Only empty." }),
});
export const FaultToleranceReply = z.record(
  z.string().meta({ description: "The engine's number." }),
  z.object({ status: z.string(), restarts: z.int() }),
);

/** @throws Fault invalid_request */
export function decodeFaultTolerance(body: z.output<typeof FaultToleranceBody>): {
  readonly instruction: "pause" | "retry";
  readonly timeoutMs: number;
} {
  const { fault_tolerance_params: params } = body;
  if (params !== undefined && params !== null && (typeof params !== "object" || Object.keys(params).length > 0))
    throw invalid("fault_tolerance_params", "The instructions take no parameters.");
  return { instruction: body.fault_tolerance_instruction, timeoutMs: body.fault_tolerance_timeout * 1000 };
}

export function encodeHealth(
  engines: readonly { readonly engine: number; readonly state: string; readonly restarts: number }[],
): z.output<typeof FaultToleranceReply> {
  return Object.fromEntries(engines.map(({ engine, state, restarts }) => [engine, { status: state, restarts }]));
}

const SpecialToken = z.object({ id: z.int(), content: z.string(), special: z.boolean() });
export const TokenizerInfoReply = z.object({
  tokenizer_class: z.string(),
  vocab_size: z.int(),
  model_max_length: z.int(),
  chat_template: z.string().nullable(),
  bos_token: z.string().nullable(),
  eos_token: z.string().nullable(),
  add_bos_token: z.boolean(),
  added_tokens: z.array(SpecialToken),
});

export function encodeTokenizerInfo(facts: {
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly chatTemplate: string | undefined;
  readonly bos: string | undefined;
  readonly eos: string | undefined;
  readonly addsBos: boolean;
  readonly specials: readonly { readonly id: number; readonly text: string; readonly control: boolean }[];
}): z.output<typeof TokenizerInfoReply> {
  return {
    tokenizer_class: "GGUF",
    vocab_size: facts.vocabularySize,
    model_max_length: facts.contextLength,
    chat_template: facts.chatTemplate ?? null,
    bos_token: facts.bos ?? null,
    eos_token: facts.eos ?? null,
    add_bos_token: facts.addsBos,
    added_tokens: facts.specials.map(({ id, text, control }) => ({ id, content: text, special: control })),
  };
}
