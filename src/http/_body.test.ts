/** Bodies that come whole: when their calls go on, and that nobody gets one whose client has left. */
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { test } from "node:test";
import { Fault } from "#core/fault.ts";
import { AUTH, dial, rig, statusesOf, until } from "#test/http/harness.ts";
import { readBody } from "./_body.ts";
import type { Exchange } from "./_exchange.ts";
import { PlainRequest } from "./_plain-request.ts";
import { DEFAULT_HTTP_OPTIONS } from "./options.ts";

const LONG = 100_000;

interface Call {
  readonly req: PlainRequest;
  /** What became of it. */
  outcome: "waits" | "whole" | Error;
  interrupt(reason: Fault): void;
  readonly timers: () => number;
  readonly read: () => boolean;
}

/** A call whose body is awaited, of which so far the head has come. */
function call(length: number): Call {
  const socket = {} as Socket;
  const head = { method: "POST", target: "/", rawHeaders: [], length, size: 0, closes: false, digits: undefined };
  const req = new PlainRequest(head, { socket, pause() {}, resume() {} });
  let interrupt: (reason: Fault) => void = () => assert.fail("nobody waits");
  const timers = new Set<number>();
  const exchange = {
    req,
    res: {},
    options: DEFAULT_HTTP_OPTIONS,
    bytesIn: 0,
    bodyRead: false,
    interrupts: (run: (reason: Fault) => void) => {
      interrupt = run;
    },
    counters: {
      after: () => {
        timers.add(timers.size);
        return { end: () => timers.clear() };
      },
    },
  };
  const made: Call = {
    req,
    outcome: "waits",
    interrupt: (reason) => interrupt(reason),
    timers: () => timers.size,
    read: () => exchange.bodyRead,
  };
  Promise.resolve(readBody(exchange as unknown as Exchange, 1_000_000)).then(
    ({ bytes }) => {
      made.outcome = bytes?.length === length ? "whole" : new Error(`${bytes?.length} bytes`);
    },
    (error: Error) => {
      made.outcome = error;
    },
  );
  return made;
}

test("a short body's call goes on at once, those of long ones together when the turn has ended", async () => {
  const [short, first, second] = [call(1000), call(LONG), call(LONG)];
  short.req.take(Buffer.alloc(1000));
  first.req.take(Buffer.alloc(LONG));
  await null;
  assert.deepEqual([short.outcome, first.outcome, second.outcome], ["whole", "waits", "waits"]);
  second.req.take(Buffer.alloc(LONG));
  assert.equal(first.timers() + second.timers(), 0, "no body is waited for any more");
  await new Promise(setImmediate);
  assert.deepEqual([first.outcome, second.outcome], ["whole", "whole"]);
});

test("who leaves when its long body is there gets the reason, and the others their bodies", async () => {
  const [left, stays] = [call(LONG), call(LONG)];
  for (const { req } of [left, stays]) req.take(Buffer.alloc(LONG));
  const reason = new Fault("request_timeout", "It took too long.");
  left.interrupt(reason);
  await new Promise(setImmediate);
  assert.deepEqual([left.outcome, stays.outcome], [reason, "whole"]);
  assert.deepEqual([left.read(), stays.read()], [false, true]);
});

test("long bodies of many clients at once: each has its own answer", async (t) => {
  const { port } = await rig(t);
  const answers = await Promise.all(
    Array.from({ length: 24 }, async (_, i) => {
      const payload = JSON.stringify({ messages: [`${i} ${"x".repeat(70_000 + i)}`] });
      const socket = dial(port).setEncoding("latin1");
      t.after(() => socket.destroy());
      let text = "";
      socket.on("data", (piece: string) => {
        text += piece;
      });
      const request = ["POST /v1/chat HTTP/1.1", "Host: x", AUTH, "Content-Type: application/json"];
      for (const times of [1, 2, 3]) {
        socket.write(`${request.join("\r\n")}\r\nContent-Length: ${payload.length}\r\n\r\n${payload}`);
        await until(() => text.split(payload).length === times + 1, `answer ${times} of ${i}`);
      }
      return text;
    }),
  );
  for (const text of answers) assert.deepEqual(statusesOf(text), [200, 200, 200]);
});
