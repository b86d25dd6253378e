/**
 * A channel over a socket that the test plays: what is read when, what ends it.
 */
import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { type TestContext, test } from "node:test";
import { Channel, ChannelError, type ChannelSocket } from "./channel.ts";

class Played extends EventEmitter implements ChannelSocket {
  readyState = 1;
  readonly did: string[] = [];
  /** What is written is on its way until then. */
  written: ((error?: Error) => void) | undefined;

  send(text: string, done: (error?: Error) => void): void {
    this.did.push(`send ${text}`);
    this.written = done;
  }
  ping(): void {
    this.did.push("ping");
  }
  pause(): void {
    this.did.push("pause");
  }
  resume(): void {
    this.did.push("resume");
  }
  close(code: number, reason: string): void {
    this.did.push(`close ${code} ${reason}`);
  }
  terminate(): void {
    this.did.push("terminate");
    this.readyState = 3;
    this.emit("close");
  }
}

function played(t: TestContext, pingMs = 100): { socket: Played; channel: Channel; pass: (ms: number) => void } {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  const socket = new Played();
  const channel = new Channel(socket, { stallMs: 1000, pingMs });
  return { socket, channel, pass: (ms) => t.mock.timers.tick(ms) };
}

test("after each message nothing is read until somebody asks for the next", async (t) => {
  const { socket, channel } = played(t);
  const first = channel.receive();
  socket.emit("message", Buffer.from("a"), false);
  // Of the same read.
  socket.emit("message", Buffer.from("b"), false);
  assert.equal(await first, "a");
  assert.deepEqual(socket.did, ["pause", "pause"]);
  assert.equal(await channel.receive(), "b");
  assert.deepEqual(socket.did, ["pause", "pause"]);
  const third = channel.receive();
  assert.deepEqual(socket.did, ["pause", "pause", "resume"]);
  socket.emit("close");
  assert.equal(await third, undefined);
  assert.equal(await channel.receive(), undefined);
});

test("what waits is given before the end", async (t) => {
  const { socket, channel } = played(t);
  socket.emit("message", Buffer.from("a"), false);
  socket.emit("close");
  assert.equal(await channel.receive(), "a");
  assert.equal(await channel.receive(), undefined);
});

test("a message that is not taken in time ends it, and who waits for it is let go", async (t) => {
  const { socket, channel, pass } = played(t, 10_000);
  const sent = channel.send("a");
  pass(999);
  assert.ok(!socket.did.includes("terminate"));
  pass(1);
  assert.ok(socket.did.includes("terminate"));
  await sent;
  await channel.send("b");
  assert.ok(!socket.did.includes("send b"));
});

test("who answers pings stays; who does not, goes; who is not read need not", async (t) => {
  const { socket, channel, pass } = played(t);
  const next = channel.receive();
  for (let i = 0; i < 5; i++) {
    pass(100);
    socket.emit("pong");
  }
  assert.deepEqual(socket.did, Array(5).fill("ping"));
  socket.emit("message", Buffer.from("a"), false);
  await next;
  socket.did.length = 0;
  pass(1000);
  assert.deepEqual(socket.did, []);
  void channel.receive();
  pass(100);
  pass(100);
  assert.deepEqual(socket.did, ["resume", "ping", "terminate"]);
});

test("what is not text, or breaks the protocol, is an error for who receives", async (t) => {
  const { socket, channel } = played(t);
  const next = channel.receive();
  socket.emit("message", Buffer.from("a"), true);
  await assert.rejects(next, ChannelError);
  await assert.rejects(channel.receive(), ChannelError);
  assert.ok(socket.did.some((did) => did.startsWith("close 1003")));
});

test("an interruption comes in place of what would, behind what is there, and stays", async (t) => {
  const { socket, channel } = played(t);
  const next = channel.receive();
  channel.interrupt(new RangeError("enough"));
  await assert.rejects(next, RangeError);
  socket.emit("message", Buffer.from("a"), false);
  assert.equal(await channel.receive(), "a");
  await assert.rejects(channel.receive(), RangeError);
});

test("all that is on its way is let go when the connection ends", async (t) => {
  const { socket, channel } = played(t);
  const sent = Promise.all([channel.send("a"), channel.send("b")]);
  socket.terminate();
  await sent;
});

test("the reason of a close fits into its frame, in whole characters", (t) => {
  const { socket, channel } = played(t);
  channel.close(1008, `${"ä".repeat(61)}\u{1f600}`);
  const [, , reason = ""] = /^close (\d+) (.*)$/.exec(socket.did.find((did) => did.startsWith("close")) ?? "") ?? [];
  assert.ok(Buffer.byteLength(reason) <= 123 && reason.isWellFormed());
  assert.equal(reason, "ä".repeat(61));
});
