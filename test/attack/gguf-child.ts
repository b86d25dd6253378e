/**
 * A process that opens hostile files as the server does, one path a message: kernel, a few forwards, tokenizer, texts.
 * Answers with what became of it; a file that kills it is known by the answer that does not come. Forked by gguf.test.ts.
 */
import { GgufError } from "#engine/gguf/errors.ts";
import { createBatch, type Kernel } from "#engine/kernel.ts";
import { openNativeKernel } from "#engine/native/kernel.ts";
import { openTokenizer } from "#engine/native/tokenizer.ts";

const PLAIN = { contextPerSlot: 256, maxSequences: 2, maxBatchTokens: 256, threads: 1, gpuLayers: 0 };

function forward(kernel: Kernel, slot: number, count: number): void {
  const batch = createBatch(count);
  batch.count = count;
  for (let at = 0; at < count; at++) {
    batch.tokens[at] = (at * 7) % kernel.limits.vocabularySize;
    batch.positions[at] = kernel.length(slot) + at;
    batch.slots[at] = slot;
  }
  batch.outputs[count - 1] = 1;
  kernel.forward(batch);
}

async function open(modelPath: string): Promise<string> {
  try {
    const kernel = await openNativeKernel({ ...PLAIN, modelPath });
    forward(kernel, 0, 70);
    kernel.copy(0, 1, 5);
    forward(kernel, 1, 1);
    kernel.pieces();
    kernel.close();
    const tokenizer = openTokenizer({ modelPath, maxCharacters: 10_000 });
    await tokenizer.encodeText(`Hello wörld 🙂\n\t <|im_end|> 12345 ${"ab ".repeat(50)}`);
    await tokenizer.encodeTemplate("<|im_start|>user\nHi<|im_end|>");
    tokenizer.close();
    return "loaded";
  } catch (error) {
    return error instanceof GgufError ? "refused by its header" : `refused: ${String(error)}`;
  }
}

process.on("message", async (path: string) => process.send?.(await open(path)));
