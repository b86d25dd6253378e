/**
 * Other weights for a running model, after vllm/entrypoints/serve/rlhf: the same routes, with a file and its digest in
 * place of tensors over a network.
 */
import { z } from "zod";
import { Fault, invalid } from "#core/fault.ts";
import { PAUSE_MODES, type PauseMode } from "#core/operations.ts";
import { shape } from "#wire/openai/_fields.ts";
import { flag } from "./operations.ts";

export const InitWeightsBody = z.object({
  init_info: z
    .object({ backend: z.string().max(256).nullish().meta({ description: "Only file." }) })
    .loose()
    .meta({ description: "Only backend; addresses, ranks and ports of a network of trainers are refused." }),
});

export const StartWeightsBody = z
  .object({ include_draft: shape({ type: "boolean", description: "Only false." }) })
  .loose()
  .optional();

export const UpdateWeightsBody = z.object({
  update_info: z
    .object({
      path: z.string().min(1).max(4096).meta({ description: "A GGUF in one of the folders of --weight-roots." }),
      sha256: z
        .string()
        .regex(/^[0-9a-fA-F]{64}$/, "is the SHA-256 of the file, 64 hexadecimal digits")
        .meta({ description: "Of the whole file; another one is refused." }),
      mode: z.enum(PAUSE_MODES).optional().meta({
        description:
          "What becomes of sequences that have begun: wait lets them end with the old weights (default), keep goes on with the new ones, abort ends them.",
      }),
    })
    .loose(),
});

export const WorldSizeQuery = z.object({ include_dp: flag(true, "Count the engines.") });
export const WorldSizeReply = z.object({ world_size: z.int() });

const UPDATE_FIELDS = ["path", "sha256", "mode"];

/** @throws Fault invalid_request: what it names is not done here */
export function checkInit({ init_info: { backend, ...rest } }: z.output<typeof InitWeightsBody>): void {
  if (backend !== undefined && backend !== null && backend !== "file")
    throw invalid("init_info.backend", "Weights come from files here: backend is file.");
  checkNone("init_info", Object.keys(rest));
}

/** @throws Fault not_implemented | invalid_request */
export function checkStart(body: z.output<typeof StartWeightsBody>): void {
  const { include_draft: draft, ...rest } = body ?? {};
  if (draft !== undefined && draft !== null && draft !== false)
    throw new Fault("not_implemented", "The draft model keeps its weights.", { param: "include_draft" });
  checkNone("", Object.keys(rest));
}

/** @throws Fault invalid_request */
export function decodeUpdate({ update_info: info }: z.output<typeof UpdateWeightsBody>): {
  readonly path: string;
  readonly sha256: string;
  readonly mode: PauseMode;
} {
  checkNone(
    "update_info",
    Object.keys(info).filter((name) => !UPDATE_FIELDS.includes(name)),
  );
  const { path, sha256, mode = "wait" } = info;
  return { path, sha256: sha256.toLowerCase(), mode };
}

/** What a trainer asks for and does not get must not be lost in silence. */
function checkNone(parent: string, [name]: readonly string[]): void {
  if (name === undefined) return;
  const param = (parent === "" ? name : `${parent}.${name}`).slice(0, 200);
  throw invalid(param, "This field is not taken: weights come from a file with a digest here.");
}
