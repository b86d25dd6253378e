/**
 * POST /start_profile, /stop_profile, /collective_rpc, /fault_tolerance/apply; GET /server_info, /fault_tolerance/status: on
 * the operations listener, most of them only when switched on.
 */
import { operatorKey } from "#http/access.ts";
import { empty, json } from "#http/reply.ts";
import { openai } from "#wire/openai/dialect.ts";
import { decodeRpc, RpcBody, RpcReply } from "#wire/vllm/operations.ts";
import {
  decodeFaultTolerance,
  encodeHealth,
  encodeServerInfo,
  FaultToleranceBody,
  FaultToleranceReply,
  ServerInfoQuery,
  ServerInfoReply,
  StartProfileQuery,
  StartProfileReply,
  StopProfileReply,
} from "#wire/vllm/server.ts";
import { failures, late } from "./_answers.ts";
import { KIB, MINUTE, route, SECOND } from "./_services.ts";

const common = { dialect: openai, access: operatorKey("ops"), plane: "ops", audit: "metadata" } as const;
const limits = { timeoutMs: 30 * SECOND };

export const serverInfo = route({
  ...common,
  method: "GET",
  path: "/server_info",
  limits,
  query: ServerInfoQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: ServerInfoReply, doc: "Without secrets and paths." },
    ...failures,
  ],
  doc: "How the server is configured, and how its engines are.",
  handler: ({ caller, query, services }) =>
    json(encodeServerInfo(services.operations.info.tell(caller), query.config_format)),
});

export const collectiveRpc = route({
  ...common,
  method: "POST",
  path: "/collective_rpc",
  access: operatorKey("dev"),
  switchedBy: "serverDevMode",
  limits: { bodyBytes: 64 * KIB, timeoutMs: 5 * MINUTE },
  body: RpcBody,
  reply: [
    { status: 200, contentType: "application/json", schema: RpcReply, doc: "What came of it, an engine each." },
    late,
    ...failures,
  ],
  doc: "Call one of a closed list of methods; no other can be called.",
  handler: async ({ caller, body, services }) => {
    const { method, seconds } = decodeRpc(body);
    return json({ results: await services.operations.engine.rpc(caller, method, seconds) });
  },
});

export const startProfile = route({
  ...common,
  method: "POST",
  path: "/start_profile",
  access: operatorKey("profile"),
  switchedBy: "profileDir",
  limits: { timeoutMs: MINUTE },
  query: StartProfileQuery,
  reply: [
    { status: 200, contentType: "application/json", schema: StartProfileReply, doc: "It is being recorded." },
    late,
    ...failures,
  ],
  doc: "Record a profile of this process and the engines' steps.",
  handler: async ({ caller, query, services }) => {
    const seconds = await services.operations.profiles.start(caller, query.seconds || undefined);
    return json({ message: "Profiling started", seconds });
  },
});

export const stopProfile = route({
  ...common,
  method: "POST",
  path: "/stop_profile",
  access: operatorKey("profile"),
  switchedBy: "profileDir",
  limits: { timeoutMs: MINUTE },
  reply: [
    { status: 200, contentType: "application/json", schema: StopProfileReply, doc: "The files that were written." },
    late,
    ...failures,
  ],
  doc: "End the profile, and say which files hold it.",
  handler: async ({ caller, services }) => {
    const { files, leftOut } = await services.operations.profiles.stop(caller);
    return json({ files, left_out: leftOut });
  },
});

export const faultStatus = route({
  ...common,
  method: "GET",
  path: "/fault_tolerance/status",
  switchedBy: "enableFaultTolerance",
  limits,
  reply: [
    { status: 200, contentType: "application/json", schema: FaultToleranceReply, doc: "By the engine's number." },
    ...failures,
  ],
  doc: "How each engine is, and how often it was started again.",
  handler: ({ caller, services }) => json(encodeHealth(services.operations.supervision.status(caller))),
});

export const faultApply = route({
  ...common,
  method: "POST",
  path: "/fault_tolerance/apply",
  switchedBy: "enableFaultTolerance",
  limits: { bodyBytes: 64 * KIB, timeoutMs: 5 * MINUTE },
  body: FaultToleranceBody,
  reply: [{ status: 200, contentType: null, doc: "Done." }, late, ...failures],
  doc: "Freeze the work, or start failed engines now and go on.",
  handler: async ({ caller, body, services }) => {
    const { instruction, timeoutMs } = decodeFaultTolerance(body);
    await services.operations.supervision.apply(caller, instruction, timeoutMs);
    return empty();
  },
});
