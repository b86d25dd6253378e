/**
 * Values of flags that are handed on to vLLM: those that name code, and those that name a place where vLLM's own
 * processes listen. Pure. Called by plan.ts.
 *
 * Invariant (Wall: T140): no value loads code by name or path; an address is one, and private.
 */
import { StartupError } from "#app/startup-error.ts";
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { addressClass } from "#egress/addresses.ts";

type JsonObject = Readonly<Record<string, JsonValue>>;

/** Others are names of classes, which vLLM imports. */
const EXECUTORS = ["ray", "mp", "uni", "external_launcher"];
const COMPILERS = ["", "eager", "inductor"];
/** JSON values in which vLLM looks for something to import, at any depth: a connector may hold others. */
const CONFIGS = [
  "kv-transfer-config",
  "ec-transfer-config",
  "kv-events-config",
  "structured-outputs-config",
  "speculative-config",
  "compilation-config",
  "attention-config",
  "kernel-config",
  "eplb-config",
  "additional-config",
  "model-loader-extra-config",
];
/** What it imports from, by the member's name: modules, files, classes, functions. */
const CODE = /(?:module_path|_plugin|_cls|_qualname)$|^inductor_passes$/;
/** Variables that do what a flag does that is refused. */
const HOLES = /^VLLM_(?:TORCH_PROFILER_|TORCH_CUDA_PROFILE|CUSTOM_SCOPES_FOR_PROFILING|LOGGING_CONFIG_PATH)/;

/** @throws StartupError */
export function refuseCode(passed: readonly string[]): void {
  const executor = lastOf(passed, "distributed-executor-backend");
  if (executor !== undefined && !EXECUTORS.includes(executor))
    throw new StartupError(
      "--distributed-executor-backend takes ray, mp, uni or external_launcher: a class would be loaded by its name",
    );
  for (const flag of CONFIGS)
    for (const config of objectsOf(passed, flag))
      for (const [member, value] of Object.entries(config))
        if (CODE.test(member) && !isNothing(value))
          throw new StartupError(`--${flag}: ${member} is not handed on to vLLM: it loads code by name or path`);
  const compiler = objectsOf(passed, "compilation-config")[0]?.["backend"] ?? "";
  if (typeof compiler !== "string" || !COMPILERS.includes(compiler))
    throw new StartupError(
      "--compilation-config: backend is eager or inductor: another one would be loaded by its name",
    );
}

/** @throws StartupError a variable that no vLLM behind a door has */
export function refuseVariables(names: readonly string[]): void {
  const hole = names.find((name) => HOLES.test(name));
  if (hole !== undefined)
    throw new StartupError(`--vllm-environment: ${hole} is not handed on to vLLM, as the flags for the same are not`);
}

function isNothing(value: JsonValue): boolean {
  return value === null || value === "" || (typeof value === "object" && Object.keys(value).length === 0);
}

/** Flags that name an address on which vLLM's own processes talk, unencrypted and to whoever connects. */
const ADDRESSES = ["data-parallel-address", "master-addr"] as const;
const PORTS: Readonly<Record<string, readonly [string, string]>> = {
  "data-parallel-address": ["data-parallel-rpc-port", "29550"],
  "master-addr": ["master-port", "29501"],
};

/** The same as variables, with that of their port and what it is without one. */
const ADDRESS_VARIABLES = [
  ["VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT", "any port"],
  ["VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT", "5600"],
] as const;

/**
 * @param variables that are handed on
 * @throws StartupError an address that is not one private place
 */
export function exposedBy(
  passed: readonly string[],
  hostIp: string | undefined,
  variables: Readonly<Record<string, string>>,
): readonly string[] {
  const found: string[] = [];
  if (hostIp !== undefined && inside(judged("--vllm-host-ip", hostIp)))
    found.push(`${hostIp}, any port: torch.distributed and vLLM's own channels (VLLM_HOST_IP)`);
  for (const flag of ADDRESSES) {
    const address = lastOf(passed, flag);
    if (address === undefined) continue;
    const [portFlag, usual] = PORTS[flag] ?? ["", ""];
    if (inside(judged(`--${flag}`, address)))
      found.push(`${address}:${lastOf(passed, portFlag) ?? usual}/tcp (--${flag})`);
  }
  const spread = [...ADDRESSES, "nnodes"].some((flag) => lastOf(passed, flag) !== undefined);
  if (spread && hostIp === undefined)
    throw new StartupError(
      "vLLM on several machines needs --vllm-host-ip: the one private address on which this one talks to the others",
    );
  for (const [name, portName, usual] of ADDRESS_VARIABLES) {
    const address = variables[name];
    if (address !== undefined && address !== "localhost" && inside(judged(name, address)))
      found.push(`${address}:${variables[portName] ?? usual}/tcp (${name})`);
  }
  return [...found, ...transferPorts(passed), ...encoderPorts(passed), ...eventPorts(passed)];
}

/** `--kv-transfer-config`: where cached keys and values go from machine to machine, by each of its connectors. */
function transferPorts(passed: readonly string[]): readonly string[] {
  return objectsOf(passed, "kv-transfer-config").flatMap((config, index) => {
    const { kv_connector: connector } = config;
    const own = index === 0 || "kv_ip" in config ? transferPort("kv-transfer-config", "kv", config) : [];
    const side = /nixl/i.test(String(connector)) ? ["5600/tcp (VLLM_NIXL_SIDE_CHANNEL_PORT)"] : [];
    const store = /mooncake/i.test(String(connector)) ? ["8998/tcp (VLLM_MOONCAKE_BOOTSTRAP_PORT)"] : [];
    return [...own, ...side, ...store, ...extraPlaces(config["kv_connector_extra_config"] ?? null)];
  });
}

/** `scheme://[user@]host[:port]`, `address[:port]` or `name:port`; what has no place in it is no concern here. */
const PLACE = /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^@/]*@)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?(?:[/?#].*)?$/i;
const LOCAL = /^(?:file|ipc|inproc|unix):/i;

/**
 * What a connector of one's own is told of: stores and servers of metadata, in whatever members it has. An address has to be
 * inside; a name is the operator's network's to say, and is printed for the firewall.
 */
function extraPlaces(value: JsonValue, member = ""): readonly string[] {
  // One of several connectors is judged as such.
  if (isObject(value) && ("kv_connector" in value || "kv_ip" in value)) return [];
  if (typeof value === "object" && value !== null)
    return Object.entries(value).flatMap(([name, inner]) => extraPlaces(inner, Array.isArray(value) ? member : name));
  if (typeof value !== "string" || LOCAL.test(value)) return [];
  const [, bracketed = "", port] = PLACE.exec(value) ?? [];
  const host = bracketed.replace(/^\[|\]$/g, "");
  const isAddress = addressClass(host) !== "invalid";
  if (host === "" || host === "localhost" || (!isAddress && port === undefined && !value.includes("://"))) return [];
  const where = `kv_connector_extra_config ${member}`;
  if (isAddress && !inside(judged(`--kv-transfer-config ${where}`, host))) return [];
  return [`${bracketed}:${port ?? "any port"} (${where})`];
}

/** `--ec-transfer-config`: the same for what encoders of media have made. */
function encoderPorts(passed: readonly string[]): readonly string[] {
  return objectsOf(passed, "ec-transfer-config").flatMap((config, index) =>
    index === 0 || "ec_ip" in config ? transferPort("ec-transfer-config", "ec", config) : [],
  );
}

function transferPort(flag: string, what: "kv" | "ec", config: JsonObject): readonly string[] {
  const ip = config[`${what}_ip`] ?? "127.0.0.1";
  const port = config[`${what}_port`] ?? 14_579;
  if (typeof ip !== "string") throw new StartupError(`--${flag}: ${what}_ip takes an address`);
  return inside(judged(`--${flag} ${what}_ip`, ip)) ? [`${ip}:${String(port)}/tcp (${what}_port)`] : [];
}

/** `--kv-events-config`: what is cached is told to whoever connects. vLLM's own default is every interface. */
function eventPorts(passed: readonly string[]): readonly string[] {
  const text = lastOf(passed, "kv-events-config");
  if (text === undefined) return [];
  const config = objectOf("--kv-events-config", text);
  const places = [
    ["endpoint", config["endpoint"] ?? "tcp://*:5557"],
    ["replay_endpoint", config["replay_endpoint"] ?? null],
  ] as const;
  return places.flatMap(([name, place]) => {
    if (place === null || (typeof place === "string" && /^(ipc|inproc):/.test(place))) return [];
    const [, host = "", port = ""] = /^tcp:\/\/\[?([^/]+?)\]?:(\d+)$/.exec(String(place)) ?? [];
    const address = judged(`--kv-events-config ${name}`, host);
    return inside(address) ? [`${address}:${port}/tcp (${name})`] : [];
  });
}

/** Of a flag's value: it first, then all that stand in it. None: the flag is not there. @throws StartupError it is no object */
function objectsOf(passed: readonly string[], flag: string): readonly JsonObject[] {
  const text = lastOf(passed, flag);
  return text === undefined ? [] : within(objectOf(`--${flag}`, text));
}

function within(value: JsonValue): readonly JsonObject[] {
  if (typeof value !== "object" || value === null) return [];
  const deeper = Object.values(value).flatMap(within);
  return isObject(value) ? [value, ...deeper] : deeper;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(flag: string, text: string): JsonObject {
  try {
    const value = parseJson(text);
    if (isObject(value)) return value;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
  }
  throw new StartupError(`${flag} takes a JSON object`);
}

/** @throws StartupError unless it is one address, inside */
function judged(flag: string, address: string): string {
  const kind = addressClass(address);
  if (kind === "private" || kind === "loopback" || kind === "link-local") return address;
  const why = kind === "invalid" ? "an address, not a name" : kind === "reserved" ? "one address" : "a private address";
  throw new StartupError(
    `${flag} takes ${why}: what vLLM's processes say to each other is neither encrypted nor authenticated`,
  );
}

function inside(address: string): boolean {
  return addressClass(address) !== "loopback";
}

/** The last of several counts, as it does for vLLM. */
function lastOf(words: readonly string[], flag: string): string | undefined {
  const at = words.lastIndexOf(`--${flag}`);
  return at < 0 ? undefined : words[at + 1];
}
