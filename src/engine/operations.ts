/**
 * What an operator asks of one engine process, and what it answers: one message each way. Nothing steps while one of
 * them is carried out. Sent by supervisor.ts, carried out by operator.ts.
 */
import type { KernelInit } from "./messages.ts";
import type { Timeline } from "./timeline.ts";

export type Operation =
  /** No steps from now on; sequences keep their slots. */
  | { readonly what: "freeze" }
  | { readonly what: "thaw" }
  /** Forget all prefixes; without `running` refused while a sequence runs. */
  | { readonly what: "reset"; readonly running: boolean }
  /** Sequences go back to the queue; the kernel is closed. */
  | { readonly what: "sleep" }
  /** The kernel is opened again, and steps go on. */
  | { readonly what: "wake" }
  /** Another kernel with the same limits and vocabulary takes the place of the present one. */
  | { readonly what: "swap"; readonly kernel: KernelInit }
  | { readonly what: "record"; readonly steps: number }
  | { readonly what: "stop-recording" };

export type Outcome =
  | { readonly done: true; readonly timeline?: Timeline }
  /** Nothing has changed. `message` is for the operator. */
  | { readonly done: false; readonly message: string };
