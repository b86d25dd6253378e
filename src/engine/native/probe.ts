/**
 * Tries a model that was just opened: what libllama does with this vocabulary and these tensors, so that a file which
 * makes it abort ends the engine process at its start, where that is one clear error, and neither at somebody's request
 * nor in the HTTP process, which opens the same vocabulary only once it was tried here (Wall: T22).
 *
 * Called by the kernels when they open.
 */
import { createBatch, type Kernel } from "#engine/kernel.ts";
import { encodeParts } from "./encode.ts";
import type { OpenModel } from "./model.ts";
import { readVocabulary, type Vocabulary } from "./vocabulary.ts";

/** Every ASCII character, two to four bytes of UTF-8, runs of spaces and digits, something that looks special. */
const TEXT = `${Array.from({ length: 128 }, (_, code) => String.fromCharCode(code)).join("")} äß漢字🙂  \n\n 12345 <|im_end|><s>`;

/** What the HTTP process does with it: every token's text, and texts to tokens. */
export function probeVocabulary(model: OpenModel): Vocabulary {
  const vocabulary = readVocabulary(model);
  for (const special of [false, true]) encodeParts(model.library, model.vocabulary, [TEXT], special);
  return vocabulary;
}

/** A short prompt and an answer token, in the first slot, which is empty again afterwards. @throws KernelError */
export function probeForward(kernel: Kernel): void {
  const batch = createBatch(2);
  for (const count of [Math.min(2, kernel.limits.maxBatchTokens, kernel.limits.contextPerSlot - 1), 1]) {
    for (let at = 0; at < count; at++) batch.positions[at] = kernel.length(0) + at;
    batch.count = count;
    batch.outputs[count - 1] = 1;
    kernel.forward(batch);
  }
  kernel.truncate(0, 0);
}
