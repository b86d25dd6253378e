/**
 * A connection by itself: when a request goes out, and what may come before it has.
 */
import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Connection } from "./_connection.ts";
import { type Asker, Exchange } from "./exchange.ts";
import { UpstreamFault } from "./fault.ts";

const TIMEOUTS = { firstByteMs: 0, idleMs: 0, totalMs: 0 };
const ANSWER = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

class Wire extends EventEmitter {
  readonly writableLength = 0;
  readonly sent: string[] = [];
  destroyed = false;

  get writable(): boolean {
    return !this.destroyed;
  }

  write(bytes: Uint8Array): boolean {
    this.sent.push(Buffer.from(bytes).toString());
    return true;
  }

  destroy(): void {
    this.destroyed = true;
  }

  setNoDelay(): void {}
  ref(): void {}
  unref(): void {}
  cork(): void {}
  uncork(): void {}
  resume(): void {}
}

class Told implements Asker {
  readonly timeouts = TIMEOUTS;
  readonly failures: unknown[] = [];
  readonly answers: [status: number, written: boolean][] = [];

  headed({ status }: { readonly status: number }, _source: unknown, written: boolean): void {
    this.answers.push([status, written]);
  }

  failed(error: unknown): void {
    this.failures.push(error);
  }
}

function opened() {
  const wire = new Wire();
  const connection = new Connection({ free: () => {}, gone: () => {}, watch: () => {} });
  connection.open(wire as unknown as Socket);
  const hear = (text: string): void => {
    connection.onread.callback(connection.onread.buffer.write(text));
  };
  return { wire, connection, hear };
}

function asked(request: () => Uint8Array | readonly Uint8Array[]) {
  const told = new Told();
  return { told, exchange: new Exchange({ bytes: request }, told) };
}

const text = (said: string) => () => Buffer.from(said);

test("requests of one turn go out together at its end, in their order", async () => {
  const order: string[] = [];
  for (const name of ["a", "b", "c"]) {
    const { wire, connection } = opened();
    wire.write = (bytes) => order.push(Buffer.from(bytes).toString()) > 0;
    connection.carry(asked(text(name)).exchange);
    assert.equal(connection.written, false);
  }
  assert.deepEqual(order, []);
  await turn();
  assert.deepEqual(order, ["a", "b", "c"]);
});

test("many of one turn do not wait for its end", async () => {
  const wires = Array.from({ length: 100 }, () => {
    const { wire, connection } = opened();
    connection.carry(asked(text("x")).exchange);
    return wire;
  });
  const gone = wires.filter(({ sent }) => sent.length > 0).length;
  assert.ok(gone >= 64 && gone < 100, `${gone} went at once`);
  await turn();
  for (const { sent } of wires) assert.deepEqual(sent, ["x"], "each once");
});

test("an answer that comes before the request has gone out is nobody's", async () => {
  const { wire, connection, hear } = opened();
  const { told, exchange } = asked(text("x"));
  connection.carry(exchange);
  hear(ANSWER);
  assert.deepEqual(told.answers, []);
  const [fault] = told.failures;
  assert.ok(fault instanceof UpstreamFault && fault.reason === "protocol" && !fault.sent);
  assert.ok(wire.destroyed);
  await turn();
  assert.deepEqual(wire.sent, []);
});

test("who leaves in the same turn has asked nothing", async () => {
  const { wire, connection } = opened();
  const { told, exchange } = asked(text("x"));
  connection.carry(exchange);
  exchange.cancel();
  await turn();
  assert.deepEqual([wire.sent, wire.destroyed], [[], true]);
  assert.ok(told.failures[0] instanceof UpstreamFault && !told.failures[0].sent);
});

test("a request that cannot be made fails by itself", async () => {
  const broken = opened();
  const { told, exchange } = asked(() => {
    throw new Error("no");
  });
  broken.connection.carry(exchange);
  const { wire, connection, hear } = opened();
  const other = asked(text("x"));
  connection.carry(other.exchange);
  await turn();
  assert.equal(told.failures.length, 1);
  assert.ok(broken.wire.destroyed);
  assert.deepEqual(wire.sent, ["x"]);
  hear(ANSWER);
  assert.deepEqual(other.told.answers, [[200, true]]);
});
