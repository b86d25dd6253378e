import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { writeChunk } from "./_chunks.ts";

async function pairs(t: TestContext, count: number): Promise<{ ours: Socket[]; theirs: Socket[] }> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const ours: Socket[] = [];
  const theirs: Socket[] = [];
  for (let i = 0; i < count; i++) {
    const client = connect({ host: "127.0.0.1", port });
    const [socket] = (await once(server, "connection")) as [Socket];
    ours.push(socket);
    theirs.push(client);
  }
  t.after(() => {
    for (const socket of [...ours, ...theirs]) socket.destroy();
    server.close();
  });
  return { ours, theirs };
}

async function readAll(socket: Socket): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of socket) pieces.push(piece as Buffer);
  return Buffer.concat(pieces);
}

/** What a reader of chunks makes of it. */
function decode(bytes: Buffer): Buffer {
  const pieces: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf("\r\n", at);
    const digits = bytes.toString("latin1", at, end);
    assert.match(digits, /^[1-9a-f][0-9a-f]*$/);
    const size = Number.parseInt(digits, 16);
    pieces.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
    assert.equal(bytes.toString("latin1", at - 2, at), "\r\n");
  }
  return Buffer.concat(pieces);
}

test("sizes of every number of digits are framed so that what came out is what went in", async (t) => {
  const { ours, theirs } = await pairs(t, 1);
  const [to, from] = [ours[0] as Socket, theirs[0] as Socket];
  const got = readAll(from);
  const sent: Buffer[] = [];
  for (const size of [1, 9, 15, 16, 17, 255, 256, 4095, 4096, 16_371, 16_372, 16_373, 65_535, 65_536, 1_048_577]) {
    const chunk = Buffer.alloc(size, String(size));
    sent.push(Buffer.from(chunk));
    writeChunk(to, chunk);
    chunk.fill("#");
  }
  to.end();
  assert.ok(decode(await got).equals(Buffer.concat(sent)));
});

test("connections that share the slab get their own bytes, also those that do not read for a while", async (t) => {
  const count = 12;
  const { ours, theirs } = await pairs(t, count);
  const scratch = Buffer.alloc(9000);
  const sent = ours.map(() => [] as Buffer[]);
  let behind = 0;
  for (let round = 0; round < 1500; round++) {
    const i = round % count;
    const size = 1 + ((round * 7919) % 8999);
    scratch.fill(i * 16 + (round % 16), 0, size);
    sent[i]?.push(Buffer.from(scratch.subarray(0, size)));
    // Nobody reads yet: the buffers of the kernel fill up, and what is written from then on has to wait.
    if (!writeChunk(ours[i] as Socket, scratch.subarray(0, size))) behind++;
    if (round % 300 === 299) await new Promise(setImmediate);
  }
  assert.ok(ours.some((socket) => socket.writableLength > 0) || behind === 0);
  const answers = theirs.map(readAll);
  for (let round = 0; round < 300; round++) writeChunk(ours[0] as Socket, scratch.fill(round).subarray(0, 1 + round));
  for (const socket of ours) socket.end();
  for (const [i, answer] of (await Promise.all(answers)).entries()) {
    const own = Buffer.concat(sent[i] as Buffer[]);
    const got = decode(answer);
    assert.ok(got.subarray(0, own.length).equals(own), `connection ${i}`);
    assert.equal(got.length, own.length + (i === 0 ? (300 * 301) / 2 : 0));
  }
});
