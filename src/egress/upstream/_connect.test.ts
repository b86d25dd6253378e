import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { connectTo, type Place } from "./_connect.ts";

async function silent(t: TestContext): Promise<{ server: Server; place: Place; met: Promise<Socket> }> {
  const server = createServer();
  const met = once(server, "connection").then(([socket]) => socket as Socket);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  return { server, met, place: { host: "127.0.0.1", port, socketPath: undefined, tls: undefined, timeoutMs: 20_000 } };
}

interface Told {
  readonly error: Error | undefined;
  readonly socket: Socket | undefined;
}

/** With how often it was told until now. */
async function told(place: Place): Promise<Told & { times: () => number }> {
  let times = 0;
  const first = await new Promise<Told>((resolve) => {
    connectTo(place, undefined, (error, socket) => {
      times++;
      resolve({ error, socket });
    });
  });
  return { ...first, times: () => times };
}

test("a connection is told once, and breaks later without a second word", async (t) => {
  const { place, met } = await silent(t);
  const { error, socket, times } = await told(place);
  assert.equal(error, undefined);
  assert.ok(socket !== undefined);
  // Nobody here listens to its errors.
  socket.destroy(new Error("later"));
  await new Promise<void>((resolve) => socket.once("close", () => resolve()));
  (await met).destroy();
  assert.equal(times(), 1);
});

test("who never shakes hands has no connection by its time, and loses the socket", async (t) => {
  const { place, met } = await silent(t);
  const { error, socket, times } = await told({ ...place, tls: { rejectUnauthorized: true }, timeoutMs: 20 });
  assert.match(error?.message ?? "", /no connection within 20 ms/);
  assert.equal(socket, undefined);
  const other = await met;
  other.on("error", () => {});
  if (!other.closed) await once(other.resume(), "close");
  assert.equal(times(), 1);
});

test("where nobody listens the reason is the system's", async (t) => {
  const { server, place } = await silent(t);
  server.close();
  await once(server, "close");
  const { error, socket } = await told(place);
  assert.equal((error as NodeJS.ErrnoException).code, "ECONNREFUSED");
  assert.equal(socket, undefined);
});
