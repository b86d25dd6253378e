/**
 * Values of flags that are handed on to vLLM: those that name code, and those that name a place where vLLM's own
 * processes listen. Pure. Called by plan.ts.
 *
 * Invariant (Wall: T140): no value loads code by name or path; an address is one, and private.
 */
import { StartupError } from "#app/startup-error.ts";
import { JsonError, type JsonValue, parseJson } from "#base/json.ts";
import { addressClass } from "#egress/addresses.ts";

/** Others are names of classes, which vLLM imports. */
const EXECUTORS = ["ray", "mp", "uni", "external_launcher"];
/** Members of JSON values that vLLM imports from. */
const CODE: Readonly<Record<string, string>> = {
  "kv-transfer-config": "kv_connector_module_path",
  "ec-transfer-config": "ec_connector_module_path",
  "structured-outputs-config": "reasoning_parser_plugin",
};

/** @throws StartupError */
export function refuseCode(passed: readonly string[]): void {
  const executor = lastOf(passed, "distributed-executor-backend");
  if (executor !== undefined && !EXECUTORS.includes(executor))
    throw new StartupError(
      "--distributed-executor-backend takes ray, mp, uni or external_launcher: a class would be loaded by its name",
    );
  for (const [flag, member] of Object.entries(CODE)) {
    const text = lastOf(passed, flag);
    const value = text === undefined ? undefined : objectOf(`--${flag}`, text)[member];
    if (value !== undefined && value !== null && value !== "")
      throw new StartupError(`--${flag}: ${member} is not handed on to vLLM: it loads code by name or path`);
  }
}

/** Flags that name an address on which vLLM's own processes talk, unencrypted and to whoever connects. */
const ADDRESSES = ["data-parallel-address", "master-addr"] as const;
const PORTS: Readonly<Record<string, readonly [string, string]>> = {
  "data-parallel-address": ["data-parallel-rpc-port", "29550"],
  "master-addr": ["master-port", "29501"],
};

/** @throws StartupError an address that is not one private place */
export function exposedBy(passed: readonly string[], hostIp: string | undefined): readonly string[] {
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
  return [...found, ...transferPorts(passed), ...encoderPorts(passed), ...eventPorts(passed)];
}

/** `--kv-transfer-config`: where cached keys and values go from machine to machine. */
function transferPorts(passed: readonly string[]): readonly string[] {
  const text = lastOf(passed, "kv-transfer-config");
  if (text === undefined) return [];
  const config = objectOf("--kv-transfer-config", text);
  const { kv_ip: ip = "127.0.0.1", kv_port: port = 14_579, kv_connector: connector = "" } = config;
  if (typeof ip !== "string") throw new StartupError("--kv-transfer-config: kv_ip takes an address");
  const own = inside(judged("--kv-transfer-config kv_ip", ip)) ? [`${ip}:${String(port)}/tcp (kv_port)`] : [];
  const side = /nixl/i.test(String(connector)) ? ["5600/tcp (VLLM_NIXL_SIDE_CHANNEL_PORT)"] : [];
  const store = /mooncake/i.test(String(connector)) ? ["8998/tcp (VLLM_MOONCAKE_BOOTSTRAP_PORT)"] : [];
  return [...own, ...side, ...store];
}

/** `--ec-transfer-config`: the same for what encoders of media have made. */
function encoderPorts(passed: readonly string[]): readonly string[] {
  const text = lastOf(passed, "ec-transfer-config");
  if (text === undefined) return [];
  const { ec_ip: ip = "127.0.0.1", ec_port: port = 14_579 } = objectOf("--ec-transfer-config", text);
  if (typeof ip !== "string") throw new StartupError("--ec-transfer-config: ec_ip takes an address");
  return inside(judged("--ec-transfer-config ec_ip", ip)) ? [`${ip}:${String(port)}/tcp (ec_port)`] : [];
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

function objectOf(flag: string, text: string): Readonly<Record<string, JsonValue>> {
  try {
    const value = parseJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
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
