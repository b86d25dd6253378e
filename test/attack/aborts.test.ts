/**
 * Thousands of requests that are cut at a random point leave nothing behind: no call, handler, timer or socket.
 */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { events, json } from "#http/reply.ts";
import { AUTH, closed, dial, message, reset, rig, speaksTls, until } from "#test/http/harness.ts";

// Handshakes take most of the time over TLS.
const REQUESTS = speaksTls() ? 2_000 : 10_000;
const AT_ONCE = 100;

/** The same sequence in every run: a linear congruential generator (Numerical Recipes). */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test(`${REQUESTS} aborted requests leave every counter at zero`, { timeout: 120_000 }, async (t) => {
  let opened = 0;
  let released = 0;
  const { http, port, records, logged } = await rig(t, {
    chat: async ({ body, signal }) => {
      await new Promise(setImmediate);
      if (body.messages.length % 2 === 0) return json({ text: "x".repeat(1000) });
      return events(
        (async function* () {
          opened++;
          try {
            for (;;) {
              yield "data: x\n\n";
              await new Promise((resolve) => setTimeout(resolve, 1));
              signal.throwIfAborted();
            }
          } finally {
            released++;
          }
        })(),
      );
    },
  });
  const random = generator(1);
  const whole = [1, 2].map((n) => message("POST /v1/chat", [AUTH], JSON.stringify({ messages: Array(n).fill("hi") })));
  const one = async (): Promise<void> => {
    const bytes = whole[random(2)] ?? "";
    const socket: Socket = dial(port);
    // Cut in the head, in the body, right behind it, or after a piece of the answer.
    const cut = random(3) === 0 ? random(bytes.length) : bytes.length;
    const stage = random(3);
    socket.resume();
    socket.write(bytes.slice(0, cut), () => {
      if (stage === 0) socket.destroy();
      else if (stage === 1) setImmediate(() => reset(socket));
      else if (cut < bytes.length) socket.end();
    });
    if (stage === 2 && cut === bytes.length) socket.once("data", () => socket.destroy());
    await closed(socket);
  };
  let begun = 0;
  const worker = async (): Promise<void> => {
    while (begun++ < REQUESTS) await one();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  const zero = { sockets: 0, calls: 0, handlers: 0, timers: 0 };
  await until(
    () => Object.values(http.counters()).every((count) => count === 0),
    `zero, not ${JSON.stringify(http.counters())}`,
  );
  assert.deepEqual(http.counters(), zero);
  assert.equal(released, opened);
  assert.ok(
    opened > REQUESTS / 20 && records.length > REQUESTS / 3,
    `the requests came through (${opened} streams, ${records.length} calls)`,
  );
  assert.deepEqual(
    logged.filter(({ level }) => level === "error"),
    [],
  );
});
