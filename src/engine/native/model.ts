/**
 * Opens a GGUF by libllama. The header was read and judged before (gguf/header.ts): what arrives here is a GGUF of a
 * supported architecture whose file is as long as it says.
 */

import koffi from "koffi";
import { type GgufHeader, readGgufHeader } from "#engine/gguf/header.ts";
import { type Library, library, type Pointer } from "./library.ts";
import { type Device, PlatformError } from "./locate.ts";

/** What computes, and which part of the model. */
export interface DeviceOptions {
  /** Default: the CPU. */
  readonly device?: Device;
  /** Layers to put on GPUs, where there are some; 0 = none, -1 = all. Absent: all. */
  readonly gpuLayers?: number;
  /** How the layers are shared among several GPUs, as proportions. Absent: by their memory. */
  readonly tensorSplit?: readonly number[];
}

export interface OpenModelOptions extends DeviceOptions {
  readonly path: string;
  readonly vocabularyOnly: boolean;
}

export interface OpenModel {
  readonly library: Library;
  readonly header: GgufHeader;
  /** Whether the processor alone computes. */
  readonly onCpu: boolean;
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
  const bound = library(options.device);
  const layers = bound.gpus === 0 ? 0 : (options.gpuLayers ?? -1);
  const params = {
    ...bound.modelDefaults(),
    vocab_only: options.vocabularyOnly,
    n_gpu_layers: layers,
    ...(options.tensorSplit === undefined ? {} : { tensor_split: splitOf(options.tensorSplit, bound) }),
  };
  const handle = bound.loadModel(options.path, params);
  if (handle === null)
    throw new Error("libllama cannot load this model: a tensor or a metadata key is missing or has the wrong shape");
  let open = true;
  return {
    library: bound,
    header,
    onCpu: layers === 0,
    handle,
    vocabulary: bound.vocabulary(handle),
    close: () => {
      if (open) bound.freeModel(handle);
      open = false;
    },
  };
}

/** One number a device that libllama could have, in C memory; read while the model is loaded. */
function splitOf(proportions: readonly number[], { gpus, maxDevices }: Library): Pointer {
  if (proportions.length !== gpus)
    throw new PlatformError(`--tensor-split has ${proportions.length} numbers, and there are ${gpus} devices`);
  const all = new Float32Array(Number(maxDevices()));
  all.set(proportions);
  const block = koffi.alloc("float", all.length);
  new Float32Array(koffi.view(block, all.byteLength)).set(all);
  return block;
}
