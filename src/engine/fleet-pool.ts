/**
 * A pooling request on its way through a fleet: held at the gate, computed by an engine, tried once more on another one
 * if that is lost. Numbers come whole and are the same anywhere, so a second try repeats nothing. Used by fleet.ts.
 */
import { Fault } from "#core/fault.ts";
import type { PoolRequest, PoolResult } from "#core/pool.ts";
import type { Gate, Held } from "./gate.ts";
import { EngineLost } from "./lost.ts";
import { aborted } from "./pooling/desk.ts";

export interface PoolHooks {
  readonly gate: Gate;
  /** @throws Fault (as a rejection) as Backend.pool does */
  place(request: PoolRequest, signal: AbortSignal): Promise<PoolResult>;
  moved(): void;
}

/** It counts as open from the call on. @throws Fault as Backend.pool does */
export async function poolThrough(request: PoolRequest, signal: AbortSignal, hooks: PoolHooks): Promise<PoolResult> {
  if (hooks.gate.closed) await passGate(request, signal, hooks.gate);
  try {
    return await hooks.place(request, signal);
  } catch (error) {
    if (error instanceof EngineLost) return again(request, signal, hooks, error);
    throw error;
  }
}

/** @throws the loss, where no other engine takes it */
async function again(
  request: PoolRequest,
  signal: AbortSignal,
  hooks: PoolHooks,
  loss: EngineLost,
): Promise<PoolResult> {
  await passGate(request, signal, hooks.gate);
  try {
    const result = await hooks.place(request, signal);
    hooks.moved();
    return result;
  } catch (error) {
    throw error instanceof Fault && error.kind === "engine_unavailable" ? loss : error;
  }
}

/** Waits while the gate is closed. @throws Fault engine_unavailable | draining; at once when the signal is aborted */
async function passGate(request: PoolRequest, signal: AbortSignal, gate: Gate): Promise<void> {
  if (!gate.closed || signal.aborted) return;
  const passed = Promise.withResolvers<void>();
  const held: Held = {
    request,
    samples: request.inputs.length,
    go: () => passed.resolve(),
    end: (fault: Fault = aborted()) => {
      gate.drop(held);
      passed.reject(fault);
    },
  };
  // Who left is let through, to be told so where he is expected.
  const leave = (): void => {
    gate.drop(held);
    passed.resolve();
  };
  signal.addEventListener("abort", leave, { once: true });
  gate.hold(held);
  try {
    await passed.promise;
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
