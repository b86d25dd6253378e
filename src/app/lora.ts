/**
 * --enable-lora and what follows from it: the adapters named at start, and where others may come from later.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import type { Settings } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import { AdapterFileError, adapterFile } from "#integrity/adapter-file.ts";
import { type AdapterLoader, Adapters } from "#serving/adapters.ts";
import type { Models, ServedModel } from "#serving/models.ts";
import { StartupError } from "./startup-error.ts";

/** As vLLM takes it; `base_model_name` is checked against nothing: one model is served. */
const Module = z.strictObject({ name: z.string(), path: z.string(), base_model_name: z.string().nullish() });

/** @throws StartupError a setting that makes no sense, or an adapter that cannot be loaded */
export async function loadAdapters(
  settings: Settings,
  models: Models,
  base: ServedModel,
  loader: AdapterLoader,
): Promise<Adapters> {
  const { enableLora, loraModules, loraRoots } = settings;
  if (!enableLora && loraModules.length > 0) throw new StartupError("--lora-modules needs --enable-lora");
  const adapters = new Adapters({
    models,
    base,
    loader,
    most: settings.maxCpuLoras,
    fileOf: (path) => fileOf(path, loraRoots),
  });
  for (const item of loraModules) {
    const { name, path } = moduleOf(item);
    await adapters.preload(name, resolve(path)).catch((error: unknown) => {
      if (error instanceof Fault) throw new StartupError(`the LoRA adapter ${name} (${path}): ${error.message}`);
      throw error;
    });
  }
  return adapters;
}

function fileOf(path: string, roots: readonly string[]): string {
  try {
    return adapterFile(path, roots);
  } catch (error) {
    if (!(error instanceof AdapterFileError)) throw error;
    throw new Fault("invalid_request", `lora_path: ${error.message}.`, {
      param: "lora_path",
      detail: path.slice(0, 500),
    });
  }
}

function moduleOf(item: string): { readonly name: string; readonly path: string } {
  if (!item.trimStart().startsWith("{")) {
    const at = item.indexOf("=");
    if (at < 1) throw new StartupError(`--lora-modules ${item}: takes name=path, or a JSON object with name and path`);
    return { name: item.slice(0, at), path: item.slice(at + 1) };
  }
  try {
    const parsed = Module.safeParse(parseJson(item));
    if (parsed.success) return parsed.data;
    throw new StartupError(`--lora-modules ${item}: ${z.prettifyError(parsed.error).split("\n")[0]}`);
  } catch (error) {
    if (error instanceof JsonError) throw new StartupError(`--lora-modules ${item}: ${error.message}`);
    throw error;
  }
}
