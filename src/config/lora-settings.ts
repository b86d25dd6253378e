/**
 * The rows of the settings table that are about LoRA adapters. Spread into SETTINGS, under its rules.
 */
import { bytes, integer, list, string, switched } from "./kinds.ts";

const LORA = "LoRA adapters";
const GIB = 1024 ** 3;

export const LORA_SETTINGS = {
  enableLora: switched(false, {
    section: LORA,
    doc: "Serve LoRA adapters of the model, each under a name of its own.",
  }),
  loraModules: list("name=path", {
    section: LORA,
    doc: "Adapters to load at start: name=path of a GGUF or of a folder in PEFT form, or a JSON object with name, path and sha256.",
  }),
  loraRoots: list("folder", {
    section: LORA,
    doc: "Folders that adapters may be loaded from while the server runs; none without it. With {tenant} as a part of the path a tenant loads from its own folder alone.",
  }),
  maxLoras: integer(8, [1, 256], {
    section: LORA,
    doc: "Adapters that compute in one step at most; each takes a forward of its own.",
  }),
  maxCpuLoras: integer(64, [1, 4096], { section: LORA, doc: "Adapters in memory at most." }),
  maxLorasPerTenant: integer(undefined, [0, 4096], {
    section: LORA,
    doc: "Adapters that a tenant may have loaded at most, where the policy file does not say it (adapterSlots).",
    fallbackDoc: "a quarter of --max-cpu-loras",
  }),
  maxLoraRank: integer(16, [1, 512], { section: LORA, doc: "Rank of an adapter at most." }),
  maxLoraBytes: bytes(2 * GIB, [1024, 256 * GIB], { section: LORA, doc: "Size of an adapter's file at most." }),
  loraCacheDir: string(undefined, "folder", {
    section: LORA,
    doc: "Where private copies of adapters lie, and those made of folders in PEFT form; of this server alone.",
    fallbackDoc: "lora in the folder of --download-dir",
  }),
  loraCacheBytes: bytes(32 * GIB, [1024, 4096 * GIB], { section: LORA, doc: "Size of all that lies there at most." }),
  requireLoraDigest: switched(false, {
    section: LORA,
    doc: "Load no adapter whose sha256 was not named with it.",
  }),
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
