/**
 * How vLLM is started behind this server: its words, its environment, where it listens, and what of it others could
 * reach. Pure but for what it is given.
 *
 * Invariants (Wall: T140): it listens on a Unix socket that only this server's user can open; it gets no variable that
 * is not named here or by the operator; development routes, profilers, telemetry and redirects are off, and its caches
 * are in a folder of its own; its key is on no command line.
 */
import { join } from "node:path";
import { StartupError } from "#app/startup-error.ts";
import type { Secret } from "#base/secret.ts";
import type { Environment } from "#config/environment.ts";
import type { Settings } from "#config/settings.ts";
import { exposedBy, refuseCode, refuseVariables } from "./values.ts";

export interface VllmPlan {
  readonly command: string;
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly socketPath: string;
  /** What of it listens on the network, for whoever writes the firewall's rules. */
  readonly exposed: readonly string[];
}

export interface VllmPlanParts {
  readonly settings: Settings;
  readonly model: string;
  /** As the command line and the file have them (config/vllm-engine.ts). */
  readonly passed: readonly string[];
  readonly env: Environment;
  /** Of this server alone, mode 0700: caches and what it takes for its home. */
  readonly folder: string;
  /** Of this server alone, with a short path. */
  readonly socketFolder: string;
  readonly key: Secret;
}

/** Libraries, GPUs and their transports, locale; and where the hub's files are. */
const HANDED_ON = [
  "PATH",
  "LD_LIBRARY_PATH",
  "LANG",
  "LC_ALL",
  "TZ",
  "TMPDIR",
  "CUDA_HOME",
  "CUDA_VISIBLE_DEVICES",
  "CUDA_DEVICE_ORDER",
  "NVIDIA_VISIBLE_DEVICES",
  "NVIDIA_DRIVER_CAPABILITIES",
  "HIP_VISIBLE_DEVICES",
  "ROCR_VISIBLE_DEVICES",
  "ROCM_PATH",
  "ZE_AFFINITY_MASK",
  "OMP_NUM_THREADS",
  "NCCL_SOCKET_IFNAME",
  "NCCL_IB_HCA",
  "NCCL_IB_DISABLE",
  "NCCL_P2P_DISABLE",
  "NCCL_DEBUG",
  "GLOO_SOCKET_IFNAME",
  "TORCH_CUDA_ARCH_LIST",
  "VLLM_TARGET_DEVICE",
  "VLLM_CPU_KVCACHE_SPACE",
  "VLLM_CPU_OMP_THREADS_BIND",
  "PYTHONHASHSEED",
  "HTTPS_PROXY",
  "NO_PROXY",
  "SSL_CERT_FILE",
] as const;

/** A host that no name leads to: vLLM fetches nothing for a request, as this server has done so. */
const NO_MEDIA_HOST = "media.invalid";
const LONGEST_SOCKET_PATH = 100;

/** @throws StartupError */
export function planVllm(parts: VllmPlanParts): VllmPlan {
  const { settings, model, passed, socketFolder } = parts;
  const socketPath = join(socketFolder, "vllm.sock");
  if (Buffer.byteLength(socketPath) > LONGEST_SOCKET_PATH)
    throw new StartupError(`the folder for vLLM's socket has too long a name: ${socketFolder}`);
  refuseCode(passed);
  refuseVariables(settings.vllmEnvironment);
  const words = [
    "serve",
    model,
    ...passed,
    "--uds",
    socketPath,
    "--disable-fastapi-docs",
    "--disable-uvicorn-access-log",
    "--allowed-media-domains",
    NO_MEDIA_HOST,
  ];
  const environment = environmentOf(parts);
  return {
    command: settings.vllmCommand,
    words,
    environment,
    socketPath,
    exposed: exposedBy(passed, settings.vllmHostIp, environment),
  };
}

function environmentOf({ settings, env, folder, key }: VllmPlanParts): Record<string, string> {
  const names = [...HANDED_ON, ...settings.vllmEnvironment];
  const theirs = names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]] as const]));
  const cache = join(folder, "cache");
  const home = env["HOME"] ?? folder;
  return {
    // None of what is installed beside vLLM loads itself, unless the operator hands the variable on.
    VLLM_PLUGINS: "",
    ...Object.fromEntries(theirs),
    HOME: folder,
    HF_HOME: env["HF_HOME"] ?? join(env["XDG_CACHE_HOME"] ?? join(home, ".cache"), "huggingface"),
    ...(settings.hfToken === undefined ? {} : { HF_TOKEN: settings.hfToken }),
    ...(settings.offline ? { HF_HUB_OFFLINE: "1" } : {}),
    HF_HUB_DISABLE_TELEMETRY: "1",
    XDG_CACHE_HOME: cache,
    XDG_CONFIG_HOME: join(folder, "config"),
    VLLM_CACHE_ROOT: join(cache, "vllm"),
    VLLM_CONFIG_ROOT: join(folder, "config", "vllm"),
    VLLM_RPC_BASE_PATH: folder,
    TRITON_CACHE_DIR: join(cache, "triton"),
    TORCHINDUCTOR_CACHE_DIR: join(cache, "inductor"),
    VLLM_API_KEY: key.expose(),
    VLLM_HOST_IP: settings.vllmHostIp ?? "127.0.0.1",
    VLLM_SERVER_DEV_MODE: "0",
    VLLM_NO_USAGE_STATS: "1",
    VLLM_DO_NOT_TRACK: "1",
    DO_NOT_TRACK: "1",
    VLLM_MEDIA_URL_ALLOW_REDIRECTS: "0",
    VLLM_MM_HASHER_ALGORITHM: "sha256",
    VLLM_ALLOW_INSECURE_SERIALIZATION: "0",
    VLLM_ALLOW_RUNTIME_LORA_UPDATING: settings.allowRuntimeLoraUpdating ? "1" : "0",
    VLLM_DEBUG_LOG_API_SERVER_RESPONSE: "0",
    VLLM_MAX_N_SEQUENCES: String(settings.maxN),
    VLLM_ENABLE_SCALE_OUT_ENDPOINTS: "1",
    PYTHONDONTWRITEBYTECODE: "1",
    PYTHONNOUSERSITE: "1",
  };
}
