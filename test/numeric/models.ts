/**
 * The models whose numbers are known in double precision, and where those stand. Used by make-fixture.ts and the test.
 */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeModel } from "../fixtures/gguf.ts";
import { DEMO_MODEL } from "../harness.ts";

export const EXPECTED = new URL("./expected.json", import.meta.url);

export interface Expected {
  readonly model: string;
  /** SHA-256 of the model's file. */
  readonly digest: string;
  readonly cases: readonly {
    readonly prompt: readonly number[];
    /** Of each prompt token but the first. */
    readonly logprobs: readonly number[];
    /** `lead`: over the second likeliest, in nats. */
    readonly greedy: readonly { readonly token: number; readonly logprob: number; readonly lead: number }[];
  }[];
}

/** F32 weights: what is left is the error of the kernels themselves. */
function floats(): string {
  const path = join(mkdtempSync(join(tmpdir(), "castellan-numeric-")), "f32.gguf");
  writeModel(path, { weights: "f32", seed: 11 });
  return path;
}

export const MODELS: Readonly<Record<string, () => string>> = { floats, demo: () => DEMO_MODEL };
