/**
 * Bodies of operations that go to every server, where more than the declared schema holds them: judged as the routes here
 * judge them, and written anew with nothing but what was judged. Pure. Callers: relayed-routes.ts.
 */
import type { JsonValue } from "#base/json.ts";
import { conform } from "#core/conform.ts";
import { rpcMethod } from "#serving/operations.ts";
import { decodeRpc, RpcBody } from "#wire/vllm/operations.ts";
import { decodeFaultTolerance, FaultToleranceBody } from "#wire/vllm/server.ts";

/** A method of the closed list, without arguments: by name a server would call any (Wall: T94). @throws Fault */
export function rpcBody(value: unknown): JsonValue {
  const { method, seconds } = decodeRpc(conform(RpcBody, value));
  return { method: rpcMethod(method), ...(seconds === undefined ? {} : { timeout: seconds }) };
}

/** @throws Fault invalid_request */
export function faultToleranceBody(value: unknown): JsonValue {
  const { instruction, timeoutMs } = decodeFaultTolerance(conform(FaultToleranceBody, value));
  return {
    fault_tolerance_instruction: instruction,
    fault_tolerance_timeout: timeoutMs / 1000,
    fault_tolerance_params: {},
  };
}
