/**
 * Operations as the settings want them: over the engine, the operator's folders and the audit log. Called by compose.ts.
 */
import { availableParallelism, totalmem } from "node:os";
import { resolve } from "node:path";
import type { Setting } from "#config/kinds.ts";
import { type SettingName, type Settings, settingRows } from "#config/settings.ts";
import { Fault } from "#core/fault.ts";
import type { EngineHandle } from "#engine/options.ts";
import { type WeightFile, WeightFileError, weightFile } from "#integrity/weight-file.ts";
import type { RecordEvent } from "#serving/administration.ts";
import { OperationLine } from "#serving/operation-line.ts";
import { EngineOperations } from "#serving/operations.ts";
import { Profiles } from "#serving/profiles.ts";
import { ServerInfo, type Told } from "#serving/server-info.ts";
import type { ServerOperations } from "#serving/server-operations.ts";
import { Supervision } from "#serving/supervision.ts";
import { WeightUpdates } from "#serving/weights.ts";
import { checkWeights, type ModelSource } from "./model-source.ts";
import { version } from "./paths.ts";
import { cpuRecorder, profileFolder } from "./profiling.ts";
import { StartupError } from "./startup-error.ts";

export interface OperationParts {
  readonly settings: Settings;
  readonly source: ModelSource;
  readonly engine: EngineHandle;
  readonly record: RecordEvent;
}

export function openOperations({ settings, source, engine, record }: OperationParts): ServerOperations {
  const { operations } = engine;
  // One that was taken away has totals and is none.
  const engines = () => engine.engines().filter(({ state }) => state !== "stopped");
  const line = new OperationLine();
  return {
    engine: new EngineOperations({ operations, engines, line }),
    weights: new WeightUpdates({
      operations,
      line,
      record,
      judge: (path, sha256, signal) => judged(path, sha256, signal, settings, source),
      waitMs: settings.weightDrainTimeout * 1000,
    }),
    profiles: new Profiles({
      operations,
      cpu: cpuRecorder(),
      // Without the setting no route comes here.
      folder: profileFolder(resolve(settings.profileDir ?? "profiles")),
      maxSeconds: settings.profileMaxSeconds,
      maxBytes: settings.profileMaxBytes,
    }),
    supervision: new Supervision({ operations, engines, line }),
    info: new ServerInfo({ settings: toldSettings(settings), system: system(engine), operations, engines }),
  };
}

/** The digest first: until it is right nothing reads the file's header. @throws Fault invalid_request | cancelled */
async function judged(
  path: string,
  sha256: string,
  signal: AbortSignal,
  settings: Settings,
  source: ModelSource,
): Promise<WeightFile> {
  try {
    const file = await weightFile(path, settings.weightRoots, sha256, signal);
    checkWeights(file.path, source.facts);
    return file;
  } catch (error) {
    if (error instanceof WeightFileError) throw refused(`update_info.path: ${error.message}.`, path);
    if (error instanceof StartupError) throw refused(`The weights are refused: ${error.message}.`, path);
    if (signal.aborted) throw new Fault("cancelled", "The request was cancelled.", { cause: error });
    throw error;
  }
}

function refused(message: string, path: string): Fault {
  return new Fault("invalid_request", message, { param: "update_info.path", detail: path.slice(0, 500) });
}

/**
 * Numbers, switches, closed choices and what is the default as they are; of any other text or list only whether it was
 * given, since it may be a secret, a path or somebody's name (Wall: T92).
 */
export function toldSettings(settings: Settings): Told {
  return Object.fromEntries(settingRows().map(([name, row]) => [name, told(settings[name], row)]));
}

function told(value: Settings[SettingName], row: Setting<unknown>): Told[string] {
  const { secret = false, placeholder = "", fallback } = row;
  if (value === undefined) return null;
  if (!secret && (typeof value === "number" || typeof value === "boolean")) return value;
  if (!secret && typeof value === "string" && (value === fallback || placeholder.split("|").includes(value)))
    return value;
  const items = Array.isArray(value) ? value.length : value instanceof Map ? value.size : undefined;
  if (items !== undefined) return items === 0 ? null : `(${items} given)`;
  return "(given)";
}

function system(engine: EngineHandle): Told {
  const { architecture, parameters, contextLength, vocabularySize } = engine.model;
  return {
    castellan: version(),
    node: process.version,
    platform: process.platform,
    arch: process.arch,
    processors: availableParallelism(),
    memory_bytes: totalmem(),
    architecture,
    parameters,
    max_model_len: contextLength,
    vocabulary_size: vocabularySize,
  };
}
