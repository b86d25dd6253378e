import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { Request } from "./_request.ts";

async function open(t: TestContext, handle: (req: Request, res: ServerResponse) => void): Promise<Socket> {
  const listen: RequestListener = (req: IncomingMessage, res) => {
    assert.ok(req instanceof Request);
    handle(req, res);
  };
  const server = createServer({ IncomingMessage: Request, requireHostHeader: false }, listen).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const socket = connect(typeof address === "object" && address !== null ? address.port : 0, "127.0.0.1");
  t.after(() => {
    socket.destroy();
    server.closeAllConnections();
    server.close();
  });
  return socket;
}

function post(body: string): string {
  return `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

test("a body goes to its sink piece by piece and ends once; its connection has the next", async (t) => {
  const bodies: string[] = [];
  const socket = await open(t, (req, res) => {
    let text = "";
    const took = req.divert({
      take: (chunk) => {
        text += chunk.toString();
        return true;
      },
      end: () => {
        bodies.push(text);
        assert.equal(req.readableEnded, true);
        res.end("ok");
      },
    });
    assert.equal(took, true);
    assert.equal(req.readableEnded, false);
  });
  const answers = on(socket);
  socket.write(post("one"));
  await answers(1);
  socket.write(post("two").slice(0, -2));
  await new Promise(setImmediate);
  socket.write("wo");
  await answers(2);
  socket.write("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nth\r\n3\r\nree\r\n0\r\n\r\n");
  await answers(3);
  assert.deepEqual(bodies, ["one", "two", "three"]);
});

test("what came before somebody took it stays a stream's", async (t) => {
  const socket = await open(t, (req, res) => {
    setImmediate(async () => {
      assert.equal(req.divert({ take: () => assert.fail(), end: () => assert.fail() }), false);
      let text = "";
      for await (const piece of req) text += String(piece);
      res.end(`got ${text}`);
    });
  });
  const answers = on(socket);
  socket.write(post("early"));
  assert.match(await answers(1), /got early/);
});

test("of the headers those that frame it can be asked for by name; what stands twice is joined", async (t) => {
  const found: unknown[] = [];
  const socket = await open(t, (req, res) => {
    found.push({ ...req.headers });
    res.end("ok");
  });
  const answers = on(socket);
  const more = "TE: trailers\r\nAuthorization: Bearer k\r\ncontent-LENGTH: 0\r\nte: x\r\n__proto__: y\r\n";
  socket.write(`POST / HTTP/1.1\r\nHost: x\r\n${more}\r\n`);
  await answers(1);
  const none = { "transfer-encoding": undefined, expect: undefined, upgrade: undefined };
  assert.deepEqual(found, [{ ...none, te: "trailers, x", "content-length": "0" }]);
});

/** What came, as soon as it has so many answers. */
function on(socket: Socket): (count: number) => Promise<string> {
  let text = "";
  socket.setEncoding("latin1");
  socket.on("data", (piece: string) => {
    text += piece;
  });
  return async (count) => {
    while ((text.match(/HTTP\/1\.1 200 OK/g) ?? []).length < count || !/ok|got/.test(text)) await once(socket, "data");
    return text;
  };
}
