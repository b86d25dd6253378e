/**
 * Which declared routes go to upstream servers, and under which rule of the body. What is in neither list this server
 * answers itself, whatever answers its models. Pure data. Callers: app's relay.
 */
import type { JsonValue } from "#base/json.ts";
import { DERENDER_ROUTES, type DerenderField } from "#wire/relay/derender.ts";
import { RELAY_RULES, type RelayRule } from "#wire/relay/rules.ts";
import { faultToleranceBody, rpcBody } from "./operation-bodies.ts";

/** POST, by the declared path: the body names the model, one of its servers answers. */
export const MODEL_ROUTES: ReadonlyMap<string, RelayRule> = new Map(Object.entries(RELAY_RULES));

/** POST, a form with speech. */
export const AUDIO_ROUTES: ReadonlySet<string> = new Set(["/v1/audio/transcriptions", "/v1/audio/translations"]);

/** POST, with the request that they belong to in a field. */
export const READ_BACK_ROUTES: ReadonlyMap<string, DerenderField> = new Map(Object.entries(DERENDER_ROUTES));

/** What every server of every pool is asked, and how their answers become one. */
export interface Operation {
  /**
   * `every`: it is done where all have done it. `any`: it is so where one says so. `sum`: the numbers together. `first`:
   * all say the same, so one is enough. `results`: their lists, one behind the other. `engines`: how each engine is, numbered
   * through; a server that gives no answer stands there as an engine that is not reached, while any other does.
   */
  readonly joined: "every" | "any" | "sum" | "first" | "results" | "engines";
  /** What the pool knows from then on. */
  readonly leaves?: "asleep" | "awake";
  /** Its body is vLLM's own, and not ours: any JSON object. Else the declared route's schema holds. */
  readonly vllms?: true;
  /** What is sent of a body, in place of all of it. @throws Fault */
  readonly written?: (value: unknown) => JsonValue;
}

const EVERY: Operation = { joined: "every" };
const ANY: Operation = { joined: "any" };
const VLLMS: Operation = { joined: "every", vllms: true };

/** By method and declared path. */
export const OPERATIONS: ReadonlyMap<string, Operation> = new Map<string, Operation>([
  ["POST /pause", EVERY],
  ["POST /resume", EVERY],
  ["GET /is_paused", ANY],
  ["POST /sleep", { joined: "every", leaves: "asleep" }],
  ["POST /wake_up", { joined: "every", leaves: "awake" }],
  ["GET /is_sleeping", ANY],
  ["POST /scale_elastic_ep", EVERY],
  ["POST /is_scaling_elastic_ep", ANY],
  ["POST /reset_prefix_cache", EVERY],
  ["POST /reset_mm_cache", EVERY],
  ["POST /reset_encoder_cache", EVERY],
  ["POST /init_weight_transfer_engine", VLLMS],
  ["POST /start_weight_update", VLLMS],
  ["POST /update_weights", VLLMS],
  ["POST /finish_weight_update", VLLMS],
  ["GET /get_world_size", { joined: "sum" }],
  ["POST /start_profile", EVERY],
  ["POST /stop_profile", EVERY],
  ["GET /tokenizer_info", { joined: "first" }],
  ["POST /collective_rpc", { joined: "results", written: rpcBody }],
  ["GET /fault_tolerance/status", { joined: "engines" }],
  ["POST /fault_tolerance/apply", { joined: "every", written: faultToleranceBody }],
]);
