/**
 * The rows of the settings table that switch operational routes on. Spread into SETTINGS, under its rules.
 */
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { bytes, list, type Setting, SettingError, seconds, switched } from "./kinds.ts";

const OPERATIONS = "Operations";
const KIB = 1024;
const MIB = 1024 * KIB;

/** A folder, or vLLM's JSON object that names one. */
function folderOf(raw: unknown): string | undefined {
  if (typeof raw !== "string" || raw === "") throw new SettingError("takes a folder");
  if (!raw.trimStart().startsWith("{")) return raw;
  const { profiler, torch_profiler_dir: folder, ...rest } = objectOf(raw);
  if (profiler !== undefined && profiler !== "torch")
    throw new SettingError("profiler: only torch is taken, and means the profiles that there are here");
  const [other] = Object.keys(rest);
  if (other !== undefined) throw new SettingError(`${other} is not taken; profiler and torch_profiler_dir are`);
  if (typeof folder !== "string" || folder === "") throw new SettingError("torch_profiler_dir names the folder");
  return folder;
}

function objectOf(text: string): { readonly [name: string]: JsonValue } {
  try {
    const value = parseJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch (error) {
    if (error instanceof JsonError) throw new SettingError(`is not JSON: ${error.message}`);
    throw error;
  }
  throw new SettingError("takes a folder, or a JSON object");
}

const profileDir: Setting<string | undefined> = {
  section: OPERATIONS,
  doc: "Folder for profiles (mode 0700), which switches /start_profile and /stop_profile on; or vLLM's JSON object.",
  fallback: undefined,
  placeholder: "folder",
  flags: ["profiler-config"],
  variables: ["VLLM_TORCH_PROFILER_DIR"],
  loosens: "profiles slow the server down and tell what it does",
  parse: folderOf,
};

export const OPERATION_SETTINGS = {
  serverDevMode: switched(false, {
    section: OPERATIONS,
    doc: "Development routes on the operations listener: /collective_rpc, with a closed list of methods.",
    variables: ["VLLM_SERVER_DEV_MODE"],
    loosens: "routes for development are no routes for production",
  }),
  enableSleepMode: switched(false, {
    section: OPERATIONS,
    doc: "/sleep, /wake_up and /is_sleeping on the operations listener: the model gives its memory back and takes it again.",
  }),
  enableFaultTolerance: switched(false, {
    section: OPERATIONS,
    doc: "/fault_tolerance/status and /fault_tolerance/apply on the operations listener.",
  }),
  enableTokenizerInfoEndpoint: switched(false, {
    section: OPERATIONS,
    doc: "/tokenizer_info on the public listener.",
    loosens: "the chat template can be read by whoever may tokenize",
  }),
  weightRoots: list("folder", {
    section: OPERATIONS,
    doc: "Folders that other weights may be taken from while the server runs; none, and no route for it, without it.",
    loosens: "who decides what the model answers",
  }),
  weightDrainTimeout: seconds(120, [0, 240], {
    section: OPERATIONS,
    doc: "How long an update of the weights waits for what has begun, where it is asked to wait.",
  }),
  profileDir,
  profileMaxSeconds: seconds(60, [1, 600], { section: OPERATIONS, doc: "A profile ends by itself after so long." }),
  profileMaxBytes: bytes(64 * MIB, [64 * KIB, 1024 * MIB], {
    section: OPERATIONS,
    doc: "A profile's file at most; a larger one is not written.",
  }),
} as const;
