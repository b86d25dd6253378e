/**
 * The engine that worked on a request is gone: its process ended, or it was taken away. Thrown by supervisor.ts; a
 * request that has not begun to answer may start again elsewhere (fleet-call.ts).
 */
import { Fault } from "#core/fault.ts";

export class EngineLost extends Fault {
  constructor(message: string) {
    super("engine_failed", message);
    this.name = "EngineLost";
  }
}
