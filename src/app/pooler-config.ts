/**
 * The JSON of --pooler-config and --hf-overrides. Apart from runner.ts, since most starts have neither. Called by launch.ts.
 */
import { z } from "zod";
import type { Settings } from "#config/settings.ts";
import { operatorObject } from "./operator-json.ts";

/** The names of vLLM's pooler config that mean something here; the last three are its older names of use_activation. */
const PoolerConfig = z.strictObject({
  task: z.enum(["embed", "token_embed", "classify", "score"]).optional(),
  pooling_type: z
    .string()
    .transform((name) => name.toUpperCase())
    .pipe(z.enum(["MEAN", "CLS", "LAST", "ALL"]))
    .optional(),
  dimensions: z.int().min(1).optional(),
  use_activation: z.boolean().optional(),
  normalize: z.boolean().optional(),
  activation: z.boolean().optional(),
  softmax: z.boolean().optional(),
});

const HfOverrides = z.strictObject({
  is_matryoshka: z.boolean().optional(),
  matryoshka_dimensions: z.array(z.int().min(1)).min(1).max(1024).optional(),
});

export type Config = z.infer<typeof PoolerConfig>;
export type Overrides = z.infer<typeof HfOverrides>;

/** @throws StartupError */
export function readPooling({ poolerConfig, hfOverrides }: Pick<Settings, "poolerConfig" | "hfOverrides">): {
  readonly config: Config | undefined;
  readonly overrides: Overrides | undefined;
} {
  return {
    config: read("--pooler-config", poolerConfig, PoolerConfig),
    overrides: read("--hf-overrides", hfOverrides, HfOverrides),
  };
}

function read<T>(flag: string, text: string | undefined, schema: z.ZodType<T>): T | undefined {
  return text === undefined ? undefined : operatorObject(flag, text, schema);
}
