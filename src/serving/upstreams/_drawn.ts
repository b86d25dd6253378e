/**
 * An answer that is pushed, drawn on from here: whole, or as the call events of a response. Private to responses.ts.
 *
 * Invariant: whoever gives up draws nothing more, and the source hears of it; what waits to be drawn is bounded, as the
 * source is told to wait.
 */
import type { CallEvent } from "#core/calls.ts";
import { Fault } from "#core/fault.ts";
import type { RelaySource } from "#core/relay.ts";
import { UpstreamFault } from "#egress/upstream/fault.ts";
import { refusalText } from "#wire/relay/response-answer.ts";
import { ResponseEvents } from "#wire/relay/response-events.ts";

/** Events that wait at most, and what one read brought. */
const MOST_WAITING = 256;

/** All of an answer, whose size its sender has bounded. @throws Fault as the source fails */
export function wholeOf(source: RelaySource): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const pieces: Buffer[] = [];
    source.pipe({
      write: (chunk) => pieces.push(Buffer.from(chunk)) > 0,
      end: () => resolve(Buffer.concat(pieces)),
      fail: reject,
    });
  });
}

/** An answer that is here. */
export function heldSource(bytes: Uint8Array): RelaySource {
  return {
    pipe: (target) => {
      if (bytes.length > 0) target.write(bytes);
      target.end();
    },
    resume: () => {},
    cancel: () => {},
  };
}

/** @param model as it is printed. @throws Fault as the source fails; upstream_failed: it ends, and the response has not */
export async function* responseEvents(source: RelaySource, model: string): AsyncGenerator<CallEvent> {
  const reader = new ResponseEvents(model);
  const waiting: CallEvent[] = [];
  let over: { readonly fault?: unknown } | undefined;
  let wake: (() => void) | undefined;
  const end = (fault?: unknown): void => {
    over ??= { fault };
    wake?.();
  };
  source.pipe({
    write: (chunk) => {
      try {
        waiting.push(...reader.take(chunk));
      } catch (fault) {
        end(fault);
        return false;
      }
      wake?.();
      return waiting.length < MOST_WAITING;
    },
    end: () => end(reader.ended ? undefined : new UpstreamFault("protocol", { sent: true, detail: "it has no end" })),
    fail: (fault) => end(fault),
  });
  try {
    while (over === undefined || waiting.length > 0) {
      yield* waiting.splice(0);
      if (over !== undefined || waiting.length > 0) continue;
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      source.resume();
      await woken;
      wake = undefined;
    }
    if (over.fault !== undefined) throw over.fault;
  } finally {
    source.cancel();
  }
}

/** Why an upstream did not take a call: what it says of it, for the client. */
export async function refusalOf(source: RelaySource): Promise<Fault> {
  const message = refusalText(await wholeOf(source));
  return new Fault("invalid_request", message ?? "The model's server did not take the call.");
}
