/**
 * Entry of the helper process that encodes long texts; started by tokenizer-launcher.ts with the model's path.
 * Ends when its channel closes. A crash here fails one call and nothing else.
 */
import { encodeParts } from "./encode.ts";
import { openModel } from "./model.ts";
import type { EncodeAnswer, EncodeRequest } from "./tokenizer-launcher.ts";

const model = openModel({ path: process.argv[2] ?? "", vocabularyOnly: true });
process.title = "castellan-tokenizer";
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
process.on("disconnect", () => process.exit(0));
process.on("message", (request: EncodeRequest) => process.send?.(answer(request)));

function answer(request: EncodeRequest): EncodeAnswer {
  try {
    return {
      id: request.id,
      tokens: encodeParts(model.library, model.vocabulary, request.parts, request.parseSpecial),
    };
  } catch (error) {
    return { id: request.id, error: String(error) };
  }
}
