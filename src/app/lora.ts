/**
 * --enable-lora and what follows from it: the adapters named at start, and where others may come from later.
 */
import { join, resolve } from "node:path";
import { z } from "zod";
import { JsonError, parseJson } from "#base/json.ts";
import type { Environment } from "#config/environment.ts";
import type { Settings } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import { readGgufHeader } from "#engine/gguf/header.ts";
import { AdapterFileError, adapterRoots, rootProblem } from "#integrity/adapter-file.ts";
import { AdapterStore } from "#integrity/adapter-store.ts";
import { ModelError, toModelError } from "#integrity/model-error.ts";
import { type AdapterLoader, type AdapterSource, Adapters, type PreparedAdapter } from "#serving/adapters.ts";
import type { RecordEvent } from "#serving/administration.ts";
import type { Models, ServedModel } from "#serving/models.ts";
import { cacheDirectory } from "./paths.ts";
import type { Policy } from "./policy.ts";
import { StartupError } from "./startup-error.ts";

/** As vLLM takes it, and a digest; `base_model_name` is checked against nothing: one model is served. */
const Module = z.strictObject({
  name: z.string(),
  path: z.string(),
  base_model_name: z.string().nullish(),
  sha256: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/, "is a SHA-256 in hexadecimal")
    .nullish(),
});

export interface AdapterParts {
  readonly settings: Settings;
  readonly env: Environment;
  readonly models: Models;
  readonly base: ServedModel;
  /** Of the model. */
  readonly modelPath: string;
  readonly loader: AdapterLoader;
  readonly policy: Pick<Policy, "current">;
  readonly record: RecordEvent;
}

/** @throws StartupError a setting that makes no sense, or an adapter that cannot be loaded */
export async function loadAdapters(parts: AdapterParts): Promise<Adapters> {
  const { settings, models, base, loader, record, policy } = parts;
  const { enableLora, loraModules, loraRoots, maxCpuLoras } = settings;
  if (!enableLora && loraModules.length > 0) throw new StartupError("--lora-modules needs --enable-lora");
  for (const root of loraRoots) {
    const problem = rootProblem(root);
    if (problem !== undefined) throw new StartupError(`--lora-roots ${root}: ${problem}`);
  }
  const share = settings.maxLorasPerTenant ?? Math.max(1, Math.floor(maxCpuLoras / 4));
  const adapters = new Adapters({
    models,
    base,
    loader,
    record,
    most: maxCpuLoras,
    mostOf: (tenant) => policy.current().tenants.of(tenant)?.adapterSlots ?? share,
    digestRequired: settings.requireLoraDigest,
    prepare: enableLora ? preparing(await openStore(parts), loraRoots) : unprepared,
  });
  for (const item of loraModules) {
    const { name, path, sha256 } = moduleOf(item);
    await adapters.preload(name, resolve(path), sha256?.toLowerCase()).catch((error: unknown) => {
      if (!(error instanceof Fault)) throw error;
      // Here the folder of copies may be named: whoever starts the server can do something about it.
      const why = error.kind === "overloaded" ? (error.detail ?? error.message) : error.message;
      throw new StartupError(`the LoRA adapter ${name} (${path}): ${why}`);
    });
  }
  return adapters;
}

/** No route leads here. */
function unprepared(): never {
  throw new Fault("not_implemented", "LoRA adapters are not served.");
}

async function openStore({ settings, env, modelPath }: AdapterParts): Promise<AdapterStore> {
  const folder = settings.loraCacheDir ?? join(cacheDirectory(settings.downloadDir, env), "lora");
  try {
    return await AdapterStore.open({
      folder: resolve(folder),
      maxBytes: settings.maxLoraBytes,
      folderBytes: settings.loraCacheBytes,
      maxRank: settings.maxLoraRank,
      base: readGgufHeader(modelPath),
    });
  } catch (error) {
    const told = toModelError(error);
    if (told instanceof ModelError) throw new StartupError(`--lora-cache-dir ${folder}: ${told.message}`);
    throw error;
  }
}

type Prepare = (source: AdapterSource, signal?: AbortSignal) => Promise<PreparedAdapter>;

function preparing(store: AdapterStore, roots: readonly string[]): Prepare {
  return async ({ path, sha256, owner, anywhere }, signal) => {
    const where = anywhere === true ? "anywhere" : adapterRoots(roots, owner);
    try {
      return await store.prepare({ path, sha256, roots: where, signal });
    } catch (error) {
      throw faultOf(error, path, signal);
    }
  };
}

/** The path, and what ails the folder of copies, is for the log. */
function faultOf(error: unknown, path: string, signal: AbortSignal | undefined): unknown {
  if (error instanceof AdapterFileError)
    return new Fault("invalid_request", `lora_path: ${error.message}.`, {
      param: "lora_path",
      detail: path.slice(0, 500),
    });
  if (signal?.aborted === true) return new Fault("cancelled", "The request was cancelled.", { cause: error });
  const told = toModelError(error);
  if (!(told instanceof ModelError)) return error;
  const text = "The adapter cannot be kept at the moment.";
  return new Fault("overloaded", text, { detail: told.message, retryAfterMs: 10_000, cause: error });
}

function moduleOf(item: string): z.infer<typeof Module> {
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
