/**
 * Opens a GGUF by libllama. The header was read and judged before (gguf/header.ts): what arrives here is a GGUF of a
 * supported architecture whose file is as long as it says.
 */
import { type GgufHeader, readGgufHeader } from "#engine/gguf/header.ts";
import { type Library, library, type Pointer } from "./library.ts";

export interface OpenModelOptions {
  readonly path: string;
  readonly vocabularyOnly: boolean;
  /** Layers to put on a GPU, where the installed kernels have one; 0 = none, -1 = all. */
  readonly gpuLayers: number;
}

export interface OpenModel {
  readonly library: Library;
  readonly header: GgufHeader;
  readonly handle: Pointer;
  readonly vocabulary: Pointer;
  close(): void;
}

/**
 * @throws GgufError when the header is refused, before anything is allocated
 * @throws Error when libllama refuses what the header promised
 */
export function openModel(options: OpenModelOptions): OpenModel {
  const header = readGgufHeader(options.path);
  const bound = library();
  const params = { ...bound.modelDefaults(), vocab_only: options.vocabularyOnly, n_gpu_layers: options.gpuLayers };
  const handle = bound.loadModel(options.path, params);
  if (handle === null)
    throw new Error("libllama cannot load this model: a tensor or a metadata key is missing or has the wrong shape");
  let open = true;
  return {
    library: bound,
    header,
    handle,
    vocabulary: bound.vocabulary(handle),
    close: () => {
      if (open) bound.freeModel(handle);
      open = false;
    },
  };
}
