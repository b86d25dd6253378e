/**
 * The rows of the settings table that are about LoRA adapters. Spread into SETTINGS, under its rules.
 */
import { integer, list, switched } from "./kinds.ts";

const LORA = "LoRA adapters";

export const LORA_SETTINGS = {
  enableLora: switched(false, {
    section: LORA,
    doc: "Serve LoRA adapters of the model, each under a name of its own.",
  }),
  loraModules: list("name=path", {
    section: LORA,
    doc: "Adapters to load at start: name=path of a GGUF, or a JSON object with name and path.",
  }),
  loraRoots: list("folder", {
    section: LORA,
    doc: "Folders that adapters may be loaded from while the server runs; none without it.",
  }),
  maxLoras: integer(8, [1, 256], {
    section: LORA,
    doc: "Adapters that compute in one step at most; each takes a forward of its own.",
  }),
  maxCpuLoras: integer(64, [1, 4096], { section: LORA, doc: "Adapters in memory at most." }),
  maxLoraRank: integer(16, [1, 512], { section: LORA, doc: "Rank of an adapter at most." }),
  allowRuntimeLoraUpdating: switched(false, {
    section: LORA,
    doc: "Adapters can be loaded and unloaded over the operations listener; needs --enable-lora and --lora-roots.",
    variables: ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"],
    loosens: "who decides what the model answers",
  }),
  publicLoraRoutes: switched(false, {
    section: LORA,
    doc: "Adapters can be loaded and unloaded over the public listener, too, by keys with the scope lora:write.",
    loosens: "changing what is served takes no way into the operations listener",
  }),
} as const;
