import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, it } from "node:test";
import { Fault } from "#core/fault.ts";
import type { GenerationEvent } from "#core/generate.ts";
import { HIGH, LOW, RequestStream } from "./stream.ts";

const token = (value: number, sample = 0): GenerationEvent => ({ type: "tokens", sample, tokens: [value] });
const finish = (sample = 0): GenerationEvent => ({ type: "finish", sample, reason: "length" });

function setUp(samples = 1) {
  const said: string[] = [];
  const controller = new AbortController();
  const stream = new RequestStream(samples, controller.signal, {
    leave: () => said.push("leave"),
    setPaused: (paused) => said.push(paused ? "pause" : "resume"),
  });
  return { stream, said, controller };
}

const kindOf = (kind: string) => (error: unknown) => error instanceof Fault && error.kind === kind;

describe("RequestStream", () => {
  it("hands events on in order, to a waiting consumer or a later one, and ends with the last sample", async () => {
    const { stream, said, controller } = setUp(2);
    const first = stream.next();
    stream.push(token(1));
    assert.deepEqual(await first, { done: false, value: token(1) });
    for (const event of [finish(0), token(2, 1), finish(1)]) stream.push(event);
    const rest: GenerationEvent[] = [];
    for await (const event of stream) rest.push(event);
    assert.deepEqual(rest, [finish(0), token(2, 1), finish(1)]);
    assert.deepEqual(said, []);
    assert.equal(getEventListeners(controller.signal, "abort").length, 0);
  });

  it("pauses above HIGH and resumes below LOW, once each", async () => {
    const { stream, said } = setUp();
    for (let at = 0; at < HIGH + 10; at++) stream.push(token(at));
    assert.deepEqual(said, ["pause"]);
    for (let at = 0; at < HIGH + 10 - LOW; at++) await stream.next();
    assert.deepEqual(said, ["pause"]);
    assert.deepEqual(await stream.next(), { done: false, value: token(HIGH + 10 - LOW) });
    assert.deepEqual(said, ["pause", "resume"]);
    assert.equal(stream.backlog, LOW - 1);
  });

  it("delivers what came before a fault, then the fault, then the end", async () => {
    const { stream } = setUp();
    stream.push(token(1));
    stream.fail(new Fault("engine_failed", "gone"));
    assert.equal((await stream.next()).done, false);
    await assert.rejects(stream.next(), kindOf("engine_failed"));
    assert.equal((await stream.next()).done, true);
  });

  it("throws cancelled at once on abort, dropping what waits", async () => {
    const { stream, said, controller } = setUp();
    stream.push(token(1));
    controller.abort();
    await assert.rejects(stream.next(), kindOf("cancelled"));
    assert.equal((await stream.next()).done, true);
    assert.deepEqual(said, ["leave"]);
    const waiting = setUp();
    const pull = waiting.stream.next();
    waiting.controller.abort();
    await assert.rejects(pull, kindOf("cancelled"));
    assert.throws(() => new RequestStream(1, controller.signal, { leave() {}, setPaused() {} }), kindOf("cancelled"));
  });

  it("leaves once on break, and not at all after the end", async () => {
    const { stream, said, controller } = setUp();
    stream.push(token(1));
    for await (const _ of stream) break;
    await stream.return();
    controller.abort();
    assert.deepEqual(said, ["leave"]);
    const ended = setUp();
    ended.stream.push(finish());
    await ended.stream.return();
    assert.deepEqual(ended.said, []);
  });

  it("has one consumer", async () => {
    const { stream } = setUp();
    const pull = stream.next();
    await assert.rejects(stream.next(), /one consumer/);
    stream.push(token(1));
    assert.equal((await pull).done, false);
  });
});
