/**
 * POST /v1/load_lora_adapter and /v1/unload_lora_adapter, after vllm/entrypoints/serve/lora/protocol.py.
 */
import { z } from "zod";
import { Fault, invalid } from "#core/fault.ts";
import { bool } from "#wire/openai/_fields.ts";

export const LoadLoraBody = z.object({
  lora_name: z.string().nullish(),
  lora_path: z
    .string()
    .nullish()
    .meta({ description: "A GGUF, or a folder in PEFT form, in one of the folders of --lora-roots." }),
  sha256: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/, "is a SHA-256 in hexadecimal")
    .nullish()
    .meta({
      description: "Castellan's own: what the file has to be; of a folder, of what sha256sum prints of its two files.",
    }),
  base_model_name: z
    .string()
    .nullish()
    .meta({ description: "Castellan's own: which model it changes, where servers behind this one answer several." }),
  load_inplace: bool.optional(),
  is_3d_lora_weight: bool.optional().meta({ description: "Only false." }),
});

export const UnloadLoraBody = z.object({
  lora_name: z.string().nullish(),
  lora_int_id: z.int().nullish().meta({ description: "Not read: the name says which." }),
});

/** @throws Fault invalid_request | not_implemented */
export function decodeLoadLora(body: z.infer<typeof LoadLoraBody>): {
  readonly name: string;
  readonly path: string;
  readonly sha256: string | undefined;
  readonly inPlace: boolean;
  readonly base: string | undefined;
} {
  const { lora_name: name, lora_path: path } = body;
  if (!name || !path)
    throw invalid(name ? "lora_path" : "lora_name", "Both 'lora_name' and 'lora_path' must be provided.");
  if (body.is_3d_lora_weight)
    throw new Fault("not_implemented", "is_3d_lora_weight is not supported.", { param: "is_3d_lora_weight" });
  const sha256 = body.sha256?.toLowerCase();
  return { name, path, sha256, inPlace: body.load_inplace ?? false, base: body.base_model_name ?? undefined };
}

/** @throws Fault invalid_request */
export function decodeUnloadLora(body: z.infer<typeof UnloadLoraBody>): string {
  if (!body.lora_name) throw invalid("lora_name", "'lora_name' needs to be provided.");
  return body.lora_name;
}
